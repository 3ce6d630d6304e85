"""Settings: one value each, whatever it was written as."""

import math

import luigi
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.engine.parameters import (
    Choice,
    Names,
    Number,
    Numbers,
    SettingError,
    choice,
    inherits,
    integer,
    integers,
    names,
    number,
    numbers,
    switch,
    text,
)
from tests.tiers import examples

finite = st.floats(allow_nan=False, allow_infinity=False)


class Tuned(luigi.Task):
    svm_c = number(0.001, "test_svm", "c", "regularisation", minimum=0)
    epochs = integer(3, "test_svm", "epochs", "passes", minimum=1)
    mirror = switch(True, "test_svm", "mirror", "mirrored images too")
    layer = choice("fc7", ("pool5", "fc6", "fc7"), "test_svm", "layer", "features")
    chains = names(("rcnn",), "test_svm", "chains", "what to run")
    split = text("train", "test_svm", "split", "images")
    scales = integers((480, 688), "test_svm", "scales", "sides", minimum=1)
    ratios = numbers((0.5, 1.0), "test_svm", "ratios", "shapes", minimum=0.25)


class TestNumber:
    @pytest.mark.parametrize("value", [1000, 1000.0, "1000", "1000.0", "1e3", " 1000 "])
    def test_one_value_whatever_it_was_written_as(self, value):
        for kind in (int, float):
            normalized = Number(kind=kind).normalize(value)
            assert (normalized, type(normalized)) == (1000, kind)
        assert Tuned(svm_c=value).task_id == Tuned(svm_c=1000).task_id

    @given(finite)
    @settings(max_examples=examples(50))
    def test_float_round_trip(self, value):
        parameter = Number()
        assert parameter.normalize(value) == value
        assert parameter.parse(parameter.serialize(value)) == value
        assert parameter.normalize(parameter.normalize(value)) == value

    @example(2**53 + 1)
    @given(st.integers())
    @settings(max_examples=examples(50))
    def test_whole_numbers_are_exact(self, value):
        parameter = Number(kind=int)
        assert parameter.normalize(value) == parameter.parse(str(value)) == parameter.parse(parameter.serialize(value)) == value

    @given(finite, finite, finite)
    @settings(max_examples=examples(50))
    def test_range(self, value, a, b):
        minimum, maximum = sorted((a, b))
        parameter = Number(minimum=minimum, maximum=maximum)
        if minimum <= value <= maximum:
            assert parameter.normalize(value) == value
        else:
            with pytest.raises(SettingError, match="expected a number from"):
                parameter.normalize(value)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "", "1/0", "1e400", "ten", None, [1]])
    def test_what_is_no_number_is_refused(self, value):
        for kind, name in ((float, "a finite"), (int, "a whole")):
            if (kind, value) != (int, "1e400"):
                with pytest.raises(SettingError, match=f"expected {name} number"):
                    Number(kind=kind).normalize(value)

    @pytest.mark.parametrize("value", [0.5, "2.5", 1e-9])
    def test_fractions_are_no_whole_numbers(self, value):
        with pytest.raises(SettingError, match="expected a whole number"):
            Number(kind=int).normalize(value)

    def test_bounds_themselves_are_allowed(self):
        parameter = Number(kind=int, minimum=1, maximum=3)
        assert [parameter.normalize(value) for value in (1, 3)] == [1, 3]
        for value in (0, 4):
            with pytest.raises(SettingError, match=f"found {value}, expected a number from 1 to 3"):
                parameter.normalize(value)

    def test_error_names_the_option(self):
        with pytest.raises(SettingError, match=r"^--svm-c: found 'ten', expected a finite number"):
            Tuned(svm_c="ten")
        with pytest.raises(SettingError, match=r"^--epochs: found 0, expected a number from 1"):
            Tuned(epochs=0)


class TestChoice:
    def test_one_of_the_choices(self):
        assert Choice(choices=("a", "b")).parse("b") == "b"
        with pytest.raises(SettingError, match=r"^--layer: found 'fc8', expected one of pool5, fc6, fc7"):
            Tuned(layer="fc8")

    @pytest.mark.parametrize("value", ["a", "x/y.mat", "x.mat,y.npz", "x.mat, y.npz"])
    def test_or_files(self, value):
        assert Choice(choices=("a", "b"), suffixes=(".mat", ".npz")).parse(value) == value

    @pytest.mark.parametrize("value", ["c", "a,b", "a,x.mat", "x.mat,", "x.pkl", ""])
    def test_neither_a_choice_nor_files(self, value):
        with pytest.raises(SettingError, match=r"expected one of a, b, or files whose names end in \.mat or \.npz$"):
            Choice(choices=("a", "b"), suffixes=(".mat", ".npz")).parse(value)


class TestNames:
    @pytest.mark.parametrize("value", ["a,b", " a , b ,", ("a", "b"), ["a", "b"]])
    def test_one_value_whatever_it_was_written_as(self, value):
        assert Names().normalize(value) == ("a", "b")

    @pytest.mark.parametrize("value", ["", ",", ()])
    def test_none(self, value):
        assert Names().normalize(value) == ()

    @given(st.lists(st.text("abc-1", min_size=1)))
    @settings(max_examples=examples(50))
    def test_round_trip(self, value):
        parameter = Names()
        assert parameter.parse(parameter.serialize(tuple(value))) == tuple(value)


class TestIntegers:
    @pytest.mark.parametrize("value", ["480,688", " 480 , 688 ,", (480, 688), [480, 688], ("480", " 688"), (480.0, 688.0)])
    def test_one_value_whatever_it_was_written_as(self, value):
        normalized = Numbers().normalize(value)
        assert normalized == (480, 688)
        assert {type(part) for part in normalized} == {int}
        assert Tuned(scales=value).task_id == Tuned().task_id

    @pytest.mark.parametrize(("value", "expected"), [("688", (688,)), ((688,), (688,)), ("3,1,2", (3, 1, 2)), ("", ()), ((), ())])
    def test_one_several_or_none_in_their_order(self, value, expected):
        assert Numbers().normalize(value) == expected

    @given(st.lists(st.integers(0), unique=True))
    @settings(max_examples=examples(50))
    def test_round_trip(self, value):
        parameter = Numbers()
        assert parameter.parse(parameter.serialize(tuple(value))) == tuple(value)

    @pytest.mark.parametrize("value", ["a", "480;688", "4.5", (4.5,), (480, None), 480, None, (math.inf,), (math.nan,)])
    def test_what_is_no_list_of_whole_numbers_is_refused(self, value):
        with pytest.raises(SettingError, match=r"^--scales: found .*, expected whole numbers separated by commas$"):
            Tuned(scales=value)

    def test_the_same_number_twice_is_refused(self):
        with pytest.raises(SettingError, match=r"^--scales: found 480,600,480, expected each number once$"):
            Tuned(scales="480,600,480")

    def test_numbers_below_the_minimum_are_refused(self):
        assert Tuned(scales="1").scales == (1,)
        with pytest.raises(SettingError, match=r"^--scales: found 480,0, expected numbers from 1 on$"):
            Tuned(scales="480,0")


class TestNumbers:
    @pytest.mark.parametrize("value", ["0.5,1", " .5 , 1.0 ,", (0.5, 1), ["1/2", 1.0], "5e-1,1e0"])
    def test_one_value_whatever_it_was_written_as(self, value):
        normalized = Numbers(kind=float).normalize(value)
        assert normalized == (0.5, 1.0)
        assert {type(part) for part in normalized} == {float}
        assert Tuned(ratios=value).task_id == Tuned().task_id

    @pytest.mark.parametrize(("value", "expected"), [("4.5", (4.5,)), ((3,), (3.0,)), ("2,0.5,1", (2, 0.5, 1)), ("", ())])
    def test_one_several_or_none_in_their_order(self, value, expected):
        assert Numbers(kind=float).normalize(value) == expected

    @given(st.lists(st.floats(0, allow_nan=False, allow_infinity=False), unique=True))
    @settings(max_examples=examples(50))
    def test_round_trip(self, value):
        parameter = Numbers(kind=float)
        assert parameter.parse(parameter.serialize(tuple(value))) == tuple(value)

    @pytest.mark.parametrize("value", ["a", "1;2", (1, None), 0.5, None, (math.inf,), (math.nan,), "1e400", "1/0"])
    def test_what_is_no_list_of_numbers_is_refused(self, value):
        with pytest.raises(SettingError, match=r"^--ratios: found .*, expected numbers separated by commas$"):
            Tuned(ratios=value)

    def test_the_same_number_twice_and_those_below_the_minimum_are_refused(self):
        with pytest.raises(SettingError, match=r"^--ratios: found 0.5,1.0,0.5, expected each number once$"):
            Tuned(ratios="0.5,1,.5")
        with pytest.raises(SettingError, match=r"^--ratios: found 1.0,0.2, expected numbers from 0.25 on$"):
            Tuned(ratios="1,0.2")
        assert Tuned(ratios="0.25").ratios == (0.25,)


class TestSettings:
    """As Luigi reads them: from the command line, from an experiment file, from the class."""

    def parse(self, *arguments):
        with luigi.cmdline_parser.CmdlineParser.global_instance(["Tuned", *arguments]) as parser:
            return parser.get_task_obj()

    def test_defaults(self):
        task = self.parse()
        assert (task.svm_c, task.epochs, task.mirror, task.layer, task.chains, task.split) == (
            0.001, 3, True, "fc7", ("rcnn",), "train",
        )

    def test_command_line(self):
        task = self.parse("--svm-c", "1", "--epochs", "4.0", "--mirror", "false", "--layer", "fc6", "--chains", "rcnn,spp-net")
        assert (task.svm_c, task.epochs, task.mirror, task.layer, task.chains) == (1.0, 4, False, "fc6", ("rcnn", "spp-net"))
        assert self.parse("--mirror", "true").mirror is True
        assert self.parse("--scales", "600,7").scales == (600, 7)

    @pytest.mark.filterwarnings("ignore:The use of the configuration:DeprecationWarning")
    def test_experiment_file_and_command_line_over_it(self):
        config = luigi.configuration.get_config()
        for name, value in {"c": "0.5", "mirror": "false", "epochs": "7"}.items():
            config.set("test_svm", name, value)
        try:
            assert (Tuned().svm_c, Tuned().mirror, Tuned().epochs) == (0.5, False, 7)
            assert self.parse("--svm-c", "2").svm_c == 2.0
        finally:
            config.remove_section("test_svm")

    def test_settings_survive_the_scheduler(self):
        task = Tuned(svm_c=1e-17, epochs=2**60 + 1, mirror=False, chains=("a", "b"), scales=(1, 2), ratios=(1 / 3, 2.0))
        assert Tuned.from_str_params(task.to_str_params()).param_kwargs == task.param_kwargs


class TestInherits:
    def test_parameters_and_their_values_are_handed_on(self):
        @inherits(Tuned)
        class After(luigi.Task):
            seed = integer(0, "test_after", "seed", "seed")

        assert set(dict(After.get_params())) == {*dict(Tuned.get_params()), "seed"}
        assert After(svm_c=1, seed=2).clone(Tuned) == Tuned(svm_c=1)

    def test_left_out(self):
        @inherits(Tuned, without=("split", "chains"))
        class Twice(luigi.Task):
            pass

        assert set(dict(Tuned.get_params())) - set(dict(Twice.get_params())) == {"split", "chains"}
        assert Twice(epochs=9).clone(Tuned, split="test") == Tuned(epochs=9, split="test")

    def test_own_parameter_wins(self):
        @inherits(Tuned)
        class Own(luigi.Task):
            epochs = integer(30, "test_own", "epochs", "passes")

        assert Own().epochs == 30
