// Sizes as people read them, with the units that the Python side uses. Pure.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** 1536 -> "1.5 KiB"; what is unknown (null, NaN) is said to be so. */
export function formatBytes(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return 'unknown';
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1023.95 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 ? String(Math.round(size)) : size.toFixed(1);
  return `${value < 0 ? '-' : ''}${digits} ${UNITS[unit]}`;
}

/** 0.1234 -> "12.3%". */
export function formatShare(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return 'unknown';
  return value > 0 && value < 0.0005 ? '<0.1%' : `${(100 * value).toFixed(1)}%`;
}

/** A cell's text by the kind of its column: what is unknown is said to be, and no bytes are a dash, as in reports. */
export function formatCell(value, kind) {
  if (kind === 'text') return String(value ?? '');
  if (value === null || value === undefined) return 'unknown';
  if (kind === 'number') return value.toLocaleString('en');
  if (value === 0) return '-';
  return kind === 'share' ? formatShare(value) : formatBytes(value);
}
