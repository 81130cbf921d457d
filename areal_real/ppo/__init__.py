"""What is optimised: the policy loss, and the advantages it weighs tokens by.

Pure functions on tensors and arrays. Nothing here knows of Megatron, of ranks or of files.
"""
