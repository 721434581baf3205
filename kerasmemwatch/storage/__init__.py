"""Runs on disk: writing, reading and claiming a run's directory.

Nothing here knows about Keras or recorders; reading needs neither TensorFlow nor a writer.
"""
