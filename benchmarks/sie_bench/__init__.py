"""SIE-Bench: which importance score and policy, if any, makes an e-commerce ranker better."""
