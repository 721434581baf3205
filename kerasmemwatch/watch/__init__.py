"""What users add to their training: ``MemoryWatch``, ``MemoryBudget``, ``MemorySession``.

Thin adapters from Keras to the recorder and the tracing; nothing here measures or judges, but for the budget's limit.
"""
