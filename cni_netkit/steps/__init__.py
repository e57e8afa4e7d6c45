"""What a plan is made of: nouns that can be done, undone, checked and described.

ADD does them, DEL undoes them in reverse, CHECK checks them, GC undoes those of others.
"""
