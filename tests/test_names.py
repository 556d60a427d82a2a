"""Messages about unknown names."""

from metaopt.names import nearest


def test_a_close_name_is_suggested() -> None:
    assert nearest("adm", ["sgd", "adam", "adamw"]) == "; did you mean 'adam'? known: sgd, adam, adamw"


def test_a_distant_name_gets_the_list_only() -> None:
    assert nearest("velo", iter(["sgd", "adam"])) == "; known: sgd, adam"
    assert nearest("velo", []) == "; known: none"
