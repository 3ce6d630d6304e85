"""Where the default of each setting comes from: a paper, a file of an original release, or this project ("ours").

Papers: Girshick et al. 2014 (R-CNN), Sermanet et al. 2014 (OverFeat), He et al. 2014 (SPP-net), Girshick 2015 (Fast R-CNN), Ren
et al. 2015 (Faster R-CNN), Dai et al. 2016 (R-FCN), Shrivastava et al. 2016 (hard examples), Liu et al. 2016 (SSD), Lin et al.
2017 (RetinaNet), He et al. 2017 (Mask R-CNN), Uijlings et al. 2013 (selective search), Hoiem et al. 2012 (errors of detectors).
After "ours" comes the value of the release, if the release has such a setting.
"""

R, F, P = "rbgirshick/rcnn", "rbgirshick/fast-rcnn", "rbgirshick/py-faster-rcnn"
S, C, FCN = "ShaoqingRen/SPP_net", "YuwenXiong/py-R-FCN", "shelhamer/fcn.berkeleyvision.org"
OURS = "ours"
SOLVER = f"pascal_finetune_solver.prototxt of {R}"
RCNN_TRAIN, RCNN_BOXES = f"rcnn_train.m of {R}", f"rcnn_train_bbox_regressor.m of {R}"
SPP_SOLVER = f"pascal_finetune_fc_spm_solver.prototxt of {S}"
SPP_BOXES = f"experiments/spp_exp_bbox_reg_train_and_test_voc.m of {S}"
FAST_CONFIG, FASTER_CONFIG = f"lib/fast_rcnn/config.py of {F}", f"lib/fast_rcnn/config.py of {P}"
FAST_SOLVER = f"models/*/solver.prototxt of {F}"
STEPS, JOINT = f"tools/train_faster_rcnn_alt_opt.py of {P}", f"experiments/scripts/faster_rcnn_end2end.sh of {P}"
RATE = "for AlexNet and VGG-16; ours for the others"

SOURCES = {
    "anchor_ratios": f"generate_anchors.py of {P}",
    "anchor_scales": f"generate_anchors.py of {P}; ours for `tiny`",
    "background_overlap": f"TRAIN.BG_THRESH_LO in {FAST_CONFIG}; 0 in faster_rcnn_alt_opt.yml of {P}",
    "box_head": "ours; Simonyan & Zisserman 2015, appendix A, and Sermanet et al. 2014, table 4, have both",
    "box_min_overlap": f"{RCNN_BOXES}; {SPP_BOXES}",
    "box_regression": "Girshick et al. 2014, section 3.4",
    "class_agnostic": "ours; Dai et al. 2016, section 2",
    "box_ridge": f"{RCNN_BOXES}; {SPP_BOXES}",
    "calibrate": "Platt 1999",
    "context_padding": f"rcnn_im_crop.m of {R}; Girshick et al. 2014, appendix A",
    "detector_augment": "Liu et al. 2016, section 2.2; ours where the first weights are random",
    "detector_channels": "Lin et al. 2017; ours for `tiny`",
    "detector_images": "ours; 32 (Liu et al. 2016), 16 (Lin et al. 2017; He et al. 2017)",
    "detector_iterations": "ours; 120,000 (Liu et al. 2016), 90,000 (Lin et al. 2017)",
    "detector_learning_rate": "Liu et al. 2016, Lin et al. 2017, He et al. 2017 on their trunks; ours for the others",
    "detector_min_score": "ssd_pascal.py of weiliu89/caffe",
    "detector_regions": "He et al. 2017, section 3.1, on its trunk; ours for the others",
    "detector_size": "Liu et al. 2016; Lin et al. 2017 and He et al. 2017 on their trunks; ours for the others",
    "extract_batch": f"ours; 256 in {R}",
    "fast_images": f"TRAIN.IMS_PER_BATCH in {FAST_CONFIG}",
    "fast_iterations": f"ours; 40,000 in tools/train_net.py of {F}",
    "fast_learning_rate": f"{FAST_SOLVER}, {RATE}",
    "fast_longest_side": f"TRAIN.MAX_SIZE in {FAST_CONFIG}",
    "fast_lr_step": f"30,000 in {FAST_SOLVER}; ours when fewer steps are made",
    "fast_ohem": "ours; Shrivastava et al. 2016",
    "fast_regions": f"TRAIN.BATCH_SIZE in {FAST_CONFIG}; ours for `tiny`",
    "fast_scale": f"TRAIN.SCALES in {FAST_CONFIG}; ours for `tiny`",
    "faster_training": "Ren et al. 2015, section 3.2",
    "finetune_iterations": f"ours; 70,000 in {R}",
    "finetune_learning_rate": f"{SOLVER}, {RATE}",
    "finetune_lr_step": f"20,000 in {SOLVER}; ours when fewer steps are made",
    "freeze": f"models/*/train.prototxt of {F}",
    "image_width": f"the method's authors; 500 in rcnn_detect.m of {R}",
    "iou_threshold": "PASCAL VOC's development kit",
    "joint_images": f"iter_size in models/pascal_voc/VGG16/faster_rcnn_end2end/solver.prototxt of {P}, of one image each",
    "joint_iterations": f"ours; 70,000 in {JOINT}",
    "joint_learning_rate": f"models/pascal_voc/*/faster_rcnn_end2end/solver.prototxt of {P}, {RATE}",
    "joint_lr_step": (
        f"50,000 in models/pascal_voc/*/faster_rcnn_end2end/solver.prototxt of {P}, 80,000 in those of R-FCN in {C}; "
        "ours when fewer steps are made"
    ),
    "joint_ohem": "ours; Shrivastava et al. 2016 do it",
    "layer": f"ours; fc7 in {R}",
    "map_longest_side": f"MAX_SIZE in experiments/cfgs/multiscale.yml of {F}",
    "map_scales": "He et al. 2014, section 4.2",
    "max_detections": f"ours; 100 in lib/fast_rcnn/test.py of {P}",
    "max_per_image": f"ours; 100 in rcnn_test.m of {R}",
    "max_proposals": "Girshick et al. 2014, section 2.1: around 2000, and no limit; ours for `digits`",
    "mean_per_image": f"ours; 40 in rcnn_test.m of {R}",
    "mirror": f"TRAIN.USE_FLIPPED in {FAST_CONFIG}; pascal_finetune_train.prototxt of {R}",
    "nms_threshold": f"rcnn_test.m of {R}; TEST.NMS in {FAST_CONFIG}",
    "proposals": "ours; `fast` and `quality`: Uijlings et al. 2013",
    "pyramid_levels": "He et al. 2014, section 4.1",
    "region_classifier": "Girshick et al. 2014, appendix B",
    "rfcn_k": "Dai et al. 2016, table 4; ours for `tiny`",
    "rfcn_ohem": "Dai et al. 2016, section 2",
    "rpn_before_nms": STEPS,
    "rpn_images": f"TRAIN.IMS_PER_BATCH in {STEPS}",
    "rpn_iterations": f"ours; 80,000 in {STEPS}",
    "rpn_learning_rate": f"stage1_rpn_solver60k80k.pt of {P}, {RATE}",
    "rpn_lr_step": f"60,000 in stage1_rpn_solver60k80k.pt of {P}; ours when fewer steps are made",
    "rpn_proposals": f"ours; 2000 in {STEPS}",
    "rpn_shared_iterations": f"ours; 80,000 in {STEPS}",
    "rpn_test_before_nms": f"ours; 6000: TEST.RPN_PRE_NMS_TOP_N in {FASTER_CONFIG}",
    "rpn_test_proposals": f"TEST.RPN_POST_NMS_TOP_N in {FASTER_CONFIG}",
    "seed": f"ours; 3 in {R} and {F}",
    "segment_at_once": f"stage after stage in {FCN}; voc-fcn8s-atonce has both",
    "segment_balance": "ours; median frequency: Badrinarayanan et al. 2017, section 4; none in Long et al. 2015",
    "segment_images": f"voc-fcn32s/train.prototxt of {FCN}; 20 in Long et al. 2015",
    "segment_iterations": f"ours; 100,000 in voc-fcn32s/solver.prototxt of {FCN}",
    "segment_learned": f"lr_mult in voc-fcn32s/train.prototxt of {FCN}",
    "segment_learning_rate": f"ours, of a mean; 1e-10 of a sum in voc-fcn32s/solver.prototxt of {FCN}",
    "segment_loss": f"ours; sum in voc-fcn32s/train.prototxt of {FCN}",
    "segment_momentum": f"Long et al. 2015, section 4.3; 0.99 in voc-fcn32s/solver.prototxt of {FCN}",
    "segment_skip_iterations": f"ours; 100,000 in voc-fcn16s/solver.prototxt of {FCN}",
    "segment_skip_rate": f"ours; 0.01 in voc-fcn16s/solver.prototxt of {FCN}",
    "shared_iterations": f"ours; 40,000 in {STEPS}",
    "similar_classes": "Hoiem et al. 2012",
    "spp_longest_side": f"MAX_SIZE in experiments/cfgs/multiscale.yml of {F}",
    "spp_iterations": f"ours; max_iter is 200,000 in {SPP_SOLVER}, its rate stays after the last fall at 60,000",
    "spp_layer": f"opts.layer in experiments/Script_spp_voc.m of {S}",
    "spp_learning_rate": f"{SPP_SOLVER}; ours for `tiny`",
    "spp_lr_step": f"30,000 in {SPP_SOLVER}; ours when fewer steps are made",
    "spp_scales": "He et al. 2014, section 4.2; ours but for AlexNet and VGG-16",
    "spp_training_scale": f"opts.random_scale in finetuning/spp_finetune_voc.m of {S}; ours for `tiny`",
    "svd_fc6": "Girshick 2015, section 3.1",
    "svd_fc7": "Girshick 2015, section 3.1",
    "svm_bias": RCNN_TRAIN,
    "svm_c": RCNN_TRAIN,
    "svm_negative_overlap": f"{RCNN_TRAIN}; Girshick et al. 2014, section 2.3",
    "svm_positive_weight": RCNN_TRAIN,
    "svm_retrain_limit": RCNN_TRAIN,
    "svm_solver": f"ours; liblinear in {R}",
    "svm_tolerance": f"ours; liblinear's own in {R}, which stops 2 % from the optimum",
    "test_split": "PASCAL VOC's",
    "window_merge": "Sermanet et al. 2014, section 4.3",
    "window_merge_threshold": "ours; the paper gives none",
    "window_scales": "ours; 1.1 to 2.1 in table 5 of Sermanet et al. 2014",
}


def source_of(setting: str) -> str:
    """Where the default of `setting` comes from."""
    return SOURCES.get(setting, OURS)
