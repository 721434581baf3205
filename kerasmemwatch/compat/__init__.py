"""Every private name of TensorFlow, Keras and TensorBoard that the package uses, with what is lost without it.

Code gets such names only from here; this package does not depend on how they are used.
"""
