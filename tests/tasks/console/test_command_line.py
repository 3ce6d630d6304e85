"""Misspelt stages and options."""


def test_a_misspelt_option_is_named_with_the_nearest(project):
    printed = project.run("SumNumbers", "--threds", "2", "--cache-dri=x", status=2)
    assert printed == (
        "luigi: SumNumbers has no option --threds (did you mean --threads?); "
        "SumNumbers has no option --cache-dri=x (did you mean --cache-dir?); "
        "`luigi --module tasks SumNumbers --help` lists the options\n"
    )


def test_a_misspelt_option_of_another_stage_is_named_with_the_nearest(project):
    printed = project.run("SumNumbers", "--RaiseNumbers-pwer", "2", status=2)
    assert printed.startswith("luigi: SumNumbers has no option --RaiseNumbers-pwer (did you mean --RaiseNumbers-power?); ")


def test_the_beginning_of_an_option_is_none(project):
    assert "has no option --thread (did you mean --threads?)" in project.run("SumNumbers", "--thread", "2", status=2)


def test_a_misspelt_stage_is_named_with_the_nearest(project):
    assert project.run("SumNumber", status=2) == "luigi: there is no stage SumNumber (did you mean SumNumbers?)\n"


def test_help_begins_with_a_short_usage(project):
    printed = project.run("SumNumbers", "--help")
    assert printed.startswith("usage: luigi --module tasks STAGE [--option VALUE ...]\n")
    assert "--threads" in printed


def test_help_has_each_option_once(project):
    printed = project.run("SumNumbers", "--help")
    assert "--offset OFFSET" in printed
    assert "--SumNumbers-offset" not in printed
    assert "--job" not in printed
