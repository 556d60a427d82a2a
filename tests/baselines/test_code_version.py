"""What counts as a change of code."""

from metaopt.baselines import code_version
from metaopt.baselines.code_version import meaningful_source

SOURCE = '''
"""A module."""

# why
def f(x):  # shape [N]
    """Return twice x."""
    return 2 * x
'''


def test_comments_docstrings_and_spacing_do_not_count():
    bare = "def f(x):\n    return 2*x\n"
    assert meaningful_source(SOURCE) == meaningful_source(bare)


def test_code_and_indentation_count():
    assert meaningful_source("def f(x):\n    return 3 * x\n") != meaningful_source(SOURCE)
    inside = "for i in y:\n    a()\n    b()\n"
    outside = "for i in y:\n    a()\nb()\n"
    assert meaningful_source(inside) != meaningful_source(outside)


def test_a_hash_sign_in_a_string_is_no_comment():
    assert meaningful_source("x = '# one'\n") != meaningful_source("x = '# two'\n")


def test_families_have_their_own_versions():
    versions = {code_version(family) for family in ("quadratic", "digits_mlp")}
    assert len(versions) == 2
    assert code_version("digits_mlp") == code_version("digits_conv"), "one module makes both"
