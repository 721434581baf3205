"""What users add to their training: ``MemoryWatch``, ``MemoryBudget``, ``MemorySession``.

Thin adapters from Keras to the recorder and the tracing; only the budget compares memory with a limit.
"""
