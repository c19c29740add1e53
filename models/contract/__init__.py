"""What a trained model and the service agree on: the prompt, and the marker language of answers.

Pure: no I/O, no clock, no randomness. A change that a trained model can notice changes
`prompt.CONTRACT_VERSION`.
"""
