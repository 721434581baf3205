"""Every private name of TensorFlow, Keras and TensorBoard that the package uses, with what is lost without it.

Code that uses such a name asks here; nothing here knows what the name is used for.
"""
