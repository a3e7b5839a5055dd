"""From contents to tokens: a model's tokenizer and chat template without its other libraries, which tokens are learnt,
and what a person sees of it.
"""
