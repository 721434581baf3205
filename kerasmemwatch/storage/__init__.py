"""Runs on disk: writing, reading and claiming a run's directory.

Nothing here knows Keras or who records; a reader needs neither TensorFlow nor a writer.
"""
