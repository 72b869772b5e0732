"""Published acceptance rules, compared with the suite's on the zoo's bugs and on correct variants.

It may import numerics and score.zoo; nothing but the command of numerics may import it.
"""
