"""stub to be replaced"""


def write(run): ...
