"""Settings of trainings that go on from another and that are validated: what keys hold, and what is refused."""

from types import SimpleNamespace

import pytest

from pipeline.errors import PipelineError
from tasks.engine.artefacts import Artefact
from tasks.engine.workshop import Workshop
from tasks.fast_rcnn import DetectFastRCNN, TrainFastRCNN
from tasks.faster_rcnn.detect import DetectFasterRCNN
from tasks.faster_rcnn.four_steps import TrainRPN, TrainSharedFastRCNN
from tasks.faster_rcnn.joint import TrainFasterRCNN
from tasks.later_detectors.detect import DetectWithNetwork
from tasks.later_detectors.training import TrainDetector
from tasks.networks.parents import with_parents
from tasks.r_fcn import DetectRFCN, TrainRFCN

DETECTORS = DetectFastRCNN, DetectFasterRCNN, DetectRFCN, DetectWithNetwork
VALIDATED = TrainFastRCNN, TrainSharedFastRCNN, TrainFasterRCNN, TrainRFCN, TrainDetector


@pytest.fixture
def publish(tmp_path):
    """publish(stage, digits, steps, **settings) makes an artefact of a finished training, without files."""

    def make(stage, digits="0123456789ab", steps=3, inputs=None, **settings):
        artefact = Artefact(tmp_path, stage, digits + "c" * 52)
        workshop = Workshop(artefact)
        with workshop.lock():
            workshop.open()
            workshop.publish({
                "version": 1, "parameters": {}, "settings": {"backbone": "tiny", **settings}, "inputs": inputs or {},
                "outside": {}, "started": 0, "seconds": 1, "peak_memory": 0, "figures": {"steps": steps}, "packages": {},
                "jobs": [],
            })
            workshop.close()
        return artefact

    return make


def task(stage, tmp_path, *keys, **settings):
    return stage(cache_dir=str(tmp_path), continue_from=keys, **settings)


class TestContinuing:
    @pytest.mark.parametrize("text", ["TrainFastRCNN/0123456789ab", "0123456789ab", "0123", "0123456789ab" + "c" * 52])
    def test_the_key_of_the_parent_is_in_the_key(self, publish, tmp_path, text):
        parent, second = publish("TrainFastRCNN"), publish("TrainFastRCNN", "ffff456789ab")
        child = task(TrainFastRCNN, tmp_path, text)
        assert child.parent.key == parent.key == child.key_inputs()["outside"]["continued"]
        assert len({child.key, task(TrainFastRCNN, tmp_path).key, task(TrainFastRCNN, tmp_path, repr(second)).key}) == 3
        assert task(DetectFastRCNN, tmp_path, text).training_tasks()["network"].key == child.key

    def test_of_several_each_stage_takes_its_own(self, publish, tmp_path):
        publish("TrainRFCN", "aaaa456789ab")
        publish("TrainSharedFastRCNN", "bbbb456789ab", fast_step="4")
        publish("TrainRPN", "dddd456789ab", rpn_step="1")
        keys = "aaaa", "bbbb", "dddd"
        parents = [
            task(stage, tmp_path, *keys, **settings).parent for stage, settings in (
                (TrainRFCN, {}), (TrainSharedFastRCNN, {"fast_step": "4"}), (TrainSharedFastRCNN, {"fast_step": "2"}),
                (TrainRPN, {"rpn_step": "1"}), (TrainRPN, {"rpn_step": "3"}), (TrainFasterRCNN, {}),
            )
        ]
        assert [parent and repr(parent)[-12:-8] for parent in parents] == ["aaaa", "bbbb", None, "dddd", None, None]

    @pytest.mark.parametrize(("text", "message"), [
        ("beef", r"--continue-from beef: no artefact in .* has this key"), ("01", "expected a key or STAGE/KEY"),
        ("../0123", "expected a key"), ("0123xyz", "expected a key"), ("TrainRFCN/0123", "no artefact in"),
        ("eeee", r"IndexDataset/eeee456789ab cannot be continued, only .*TrainFastRCNN.* can"),
        ("abc", "expected a key"), ("abcd", r"TrainFastRCNN/abcd000000ab, TrainFastRCNN/abcd111111ab begin so; give more digits"),
    ])
    def test_a_bad_key_is_refused_by_name(self, publish, tmp_path, text, message):
        for stage, digits in (
            ("TrainFastRCNN", "0123456789ab"), ("IndexDataset", "eeee456789ab"), ("TrainFastRCNN", "abcd000000ab"),
            ("TrainFastRCNN", "abcd111111ab"),
        ):
            publish(stage, digits)
        with pytest.raises(PipelineError, match=message):
            task(TrainFastRCNN, tmp_path, text).key  # noqa: B018

    def test_two_of_one_stage_are_refused(self, publish, tmp_path):
        publish("TrainFastRCNN"), publish("TrainFastRCNN", "ffff456789ab")
        with pytest.raises(PipelineError, match="are of one stage; give one of them"):
            task(TrainFastRCNN, tmp_path, "0123", "ffff").key  # noqa: B018

    @pytest.mark.parametrize(("settings", "message"), [
        ({"backbone": "vgg16"}, "has --backbone vgg16, this training tiny"),
        ({"class_agnostic": "True"}, "has --class-agnostic True, this training False"),
    ])
    def test_another_network_is_refused_by_name(self, publish, tmp_path, settings, message):
        publish("TrainFastRCNN", **settings)
        with pytest.raises(PipelineError, match=message):
            task(TrainFastRCNN, tmp_path, "0123").key  # noqa: B018

    def test_as_many_steps_are_refused(self, publish, tmp_path):
        publish("TrainFastRCNN", steps=800)
        with pytest.raises(PipelineError, match="has made 800 steps, and this training shall make 800 in all"):
            task(TrainFastRCNN, tmp_path, "0123").key  # noqa: B018
        assert task(TrainFastRCNN, tmp_path, "0123", fast_iterations=801).parent

    @pytest.mark.parametrize(("theirs", "settings", "message"), [
        ({"train": "IndexDataset"}, {}, r"TrainFastRCNN/0123456789ab is of other classes: cat, dog; here: cat, owl"),
        ({"maps": "ConvFeatures"}, {"freeze": "all"}, "was trained on maps of another trunk"),
        ({}, {"freeze": "all"}, "was trained on maps of another trunk"),
    ])
    def test_other_classes_and_another_trunk_are_refused(self, publish, tmp_path, monkeypatch, theirs, settings, message):
        sources = {name: publish(stage, "dddd456789ab") for name, stage in theirs.items()}
        inputs = {name: {"stage": artefact.stage, "key": artefact.key, "digest": ""} for name, artefact in sources.items()}
        publish("TrainFastRCNN", inputs=inputs)
        monkeypatch.setattr("tasks.networks.training_options.load_split", lambda index: SimpleNamespace(classes=("cat", "dog")))
        with pytest.raises(PipelineError, match=message):
            task(TrainFastRCNN, tmp_path, "0123", fast_iterations=9, **settings).start(("cat", "owl"))

    def test_none_of_its_stage_starts_anew_and_is_told(self, publish, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr("tasks.networks.training_options.logger.propagate", True)
        publish("TrainRFCN")
        assert task(TrainFastRCNN, tmp_path, "0123").start(("cat",)) is None
        assert "starts anew: --continue-from names no training of this stage" in caplog.text

    def test_its_time_counts_as_training(self, publish):
        first = publish("TrainFastRCNN", "aaaa456789ab")
        source = {"stage": first.stage, "key": first.key, "digest": first.manifest["digest"]}
        second = publish("TrainFastRCNN", "bbbb456789ab", inputs={"continued": source})
        assert [repr(artefact)[-12:-8] for artefact in with_parents(second)] == ["bbbb", "aaaa"]


class TestValidation:
    @pytest.mark.parametrize("stage", VALIDATED)
    def test_the_split_and_its_proposals_are_in_the_key(self, stage):
        validated = stage(validate="val")
        assert validated.requires()["validation"].split == "val"
        assert len({stage().key, validated.key, stage(validate="val2").key, stage(validate="val", patience=3).key}) == 4
        assert stage(validate_every=7).key == stage().key
        with pytest.raises(PipelineError, match="--patience 3: needs a split to validate on"):
            stage(patience=3).key  # noqa: B018
        proposals = validated.requires().get("validation proposals")
        assert proposals.split == "val" if stage in VALIDATED[:2] else proposals is None

    def test_a_proposal_network_alone_is_not_validated(self):
        assert TrainRPN(validate="val", rpn_step="1").key == TrainRPN(rpn_step="1").key

    @pytest.mark.parametrize("stage", DETECTORS)
    def test_the_tested_split_is_refused(self, stage):
        with pytest.raises(PipelineError, match="--validate test: is the split that is tested"):
            stage(validate="test").requires()
        assert stage(validate="test", test_split="val").requires()

    @pytest.mark.parametrize("settings", [{"validate": "test"}, {"train_split": "test"}])
    def test_a_parent_that_saw_the_tested_split_is_refused(self, publish, tmp_path, settings):
        publish("TrainFastRCNN", **settings)
        for compressed in ({}, {"svd_fc6": 8}):
            detection = task(DetectFastRCNN, tmp_path, "0123", **compressed)
            with pytest.raises(PipelineError, match="TrainFastRCNN/0123456789ab was trained or validated on test, the split"):
                detection.requires()
            assert detection.clone(test_split="val").requires()

    @pytest.mark.parametrize("stage", VALIDATED)
    def test_the_training_split_is_refused(self, stage):
        with pytest.raises(PipelineError, match="--validate train: is the split that is trained on"):
            stage(validate="train").requires()


@pytest.mark.parametrize("stage", [*VALIDATED[:-1], TrainRPN])
def test_warm_up_is_a_setting_of_each_chain(stage):
    assert stage(warm_up_start=0.3).key == stage().key != stage(warm_up=9).key != stage(warm_up=9, warm_up_start=0.3).key
    warm = stage(warm_up=4, warm_up_start=0.2)
    schedule = warm.schedule(warm.resolve())
    assert schedule.rate(0) == pytest.approx(0.4 * schedule.rate(4))


@pytest.mark.parametrize(("settings", "regions"), [({}, 256), ({"fast_images": 1}, 128), ({"fast_regions": 64}, 64)])
def test_hard_examples_are_as_many_as_in_joint_training(settings, regions):
    for stage in (TrainFastRCNN, TrainSharedFastRCNN):
        assert stage(fast_ohem=True, **settings).resolve()["regions"] == regions


@pytest.mark.parametrize(("stage", "setting"), [
    (TrainFastRCNN, "fast_ohem"), (TrainSharedFastRCNN, "fast_ohem"), (TrainFastRCNN, "class_agnostic"),
    (TrainSharedFastRCNN, "class_agnostic"), (TrainFasterRCNN, "class_agnostic"), (TrainFastRCNN, "keep_state"),
])
def test_defaults_add_nothing_to_keys(stage, setting):
    assert setting not in {**stage().key_inputs()["outside"], **stage().key_inputs()["parameters"]}
    assert stage(**{setting: True}).key != stage().key


class TestScales:
    @pytest.mark.parametrize("stage", [TrainFastRCNN, TrainSharedFastRCNN, TrainRPN, TrainFasterRCNN, TrainRFCN])
    def test_of_training(self, stage):
        several = stage(train_scales=(300, 240))
        assert several.train_longest == 500  # 5/3 of the largest
        assert several.clone(fast_longest_side=400).train_longest == 400
        assert stage().train_longest == 600
        assert "train_scales" not in {**stage().key_inputs()["outside"], **stage().key_inputs()["parameters"]}
        assert several.key != stage().key

    def test_cached_maps_have_all_of_them(self):
        maps = TrainFastRCNN(freeze="all", train_scales=(300, 240)).requires()["maps"]
        assert (maps.map_scales, maps.map_longest_side) == ((300, 240), 500)
        shared = TrainRPN(rpn_step="3", train_scales=(300, 240)).requires()["maps"]
        assert (shared.map_scales, shared.map_longest_side) == ((300, 240), 500)

    @pytest.mark.parametrize("stage", DETECTORS[:3])
    def test_of_detection(self, stage):
        plain, several = stage(), stage(test_scales=(240, 300))
        assert several.key != plain.key
        assert "views" not in plain.detector_settings()
        assert several.detector_settings()["views"] == {"scales": [240, 300], "longest": 500, "mirror": False}
        trained = [list(task.training_tasks().values())[-1].key for task in (plain, several)]
        assert trained[0] == trained[1]

    @pytest.mark.parametrize("stage", DETECTORS[:3])
    def test_mirror_images_in_detection(self, stage):
        task = stage(test_mirror=True, dataset="somewhere")
        assert task.detector_settings()["views"] == {"scales": [360], "longest": 600, "mirror": True}
        with pytest.raises(PipelineError, match="--test-mirror true: a mirrored digit is another sign"):
            stage(test_mirror=True).key  # noqa: B018
