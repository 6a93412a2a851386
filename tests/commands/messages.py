"""Command lines with a mistake each, and what must be said of it. {tmp} is a folder that `make_files` has filled."""

# ruff: noqa: E501 - a case is a row
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detlab.config.compose import compose_config, make_detector, plain_config
from detlab.runs.checkpoints import CHECKPOINT_KEY, LAYOUT
from tests.commands.messages_files import write_checkpoints, write_tables
from tests.report.folders import write_run

TINY = ["data.counts={train: 4, val: 2, test: 2}", "data.side=64", "data.size=64", "data.sizes=[8,20]", "logger=csv"]
SMALL = ["model/neck=fpn_small", "model.head.width=16", "model.head.depth=1"]
RETINA = "train model=retinanet"
FRCNN = "train model=faster_rcnn"
SSD = "train model=ssd"
ROI = "train model=rcnn"

# fmt: off
PARTS = [
    (f"{RETINA} model.matcher.negative=0.9", r"model\.matcher needs 0 <= negative <= positive <= 1 .* got negative=0\.9"),
    (f"{RETINA} model.backbone.weights=/nope.pth", r"model\.backbone\.weights=/nope\.pth is neither 'imagenet' nor a file"),
    (f"{RETINA} model.backbone.weights={{tmp}}/text.pth", r"weights=.*text\.pth is not a checkpoint that loads"),
    (f"{RETINA} model.backbone.weights={{tmp}}/list.pth", r"weights=.*list\.pth holds no state dict"),
    (f"{RETINA} model.backbone.weights={{tmp}}/nan.pth", r"model\.backbone\.weights holds weights that are not finite or variances below 0, in 1 of \d+ entries \(first: conv1\.weight\)"),
    (f"{RETINA} model.backbone.weights={{tmp}}/other.pth", r"model\.backbone\.weights.* does not fit this network"),
    (f"{RETINA} model.backbone.norm=foo", r"model\.backbone\.norm=foo must be bn, frozen_bn, sync_bn or gn; use model\.backbone\.norm=bn"),
    (f"{RETINA} model.backbone.width=32 model.backbone.weights=imagenet", r"model\.backbone\.width=32 cannot take the weights of a network of width 64; use model\.backbone\.weights=null"),
    (f"{RETINA} trainer.max_time=00:00:00:00", r"trainer\.max_time=00:00:00:00 is no length of time; give days:hours:minutes"),
    ("check minutes=10 model=ssd", r"minutes proposes settings of experiment=small_data, so model=ssd has no place beside it"),
    ("check minutes=-1", r"minutes=-1 must be a number above 0, or null"),
    (f"{RETINA} model.backbone.depth=19", r"model\.backbone\.depth=19 is not a ResNet; use one of"),
    (f"{RETINA} model.backbone.frozen_stages=7", r"model\.backbone\.frozen_stages=7 must be a whole number from 0 to 5"),
    (f"{RETINA} model.box_loss.beta=-1", r"model\.box_loss\.beta=-1 must be a number of at least 0; use model\.box_loss\.beta=0\.111"),
    (f"{RETINA} model.box_loss.weight=abc", r"model\.box_loss\.weight=abc must be a number of at least 0; use model\.box_loss\.weight=1\.0"),
    (f"{RETINA} model.detect.topk_per_class=5", r"model\.detect takes topk=1000 or topk_per_class=5, not both"),
    (f"{RETINA} model.detect.max_detections=0.5", r"model\.detect\.max_detections=0\.5 must be a whole number from 1 to 100000; use model\.detect\.max_detections=100"),
    (f"{RETINA} model.detect.score_threshold=[1]", r"model\.detect\.score_threshold=\[1\] must be a number from 0 to 1"),
    (f"{RETINA} model.anchors.sizes=[]", r"model\.anchors\.sizes=\[\] must be a list of at least 1 entry, each a number above 0"),
    (f"{RETINA} model.anchors.steps=true", r"model\.anchors\.steps=true must be stride or divided; use model\.anchors\.steps=stride"),
    (f"{RETINA} model.neck.finest=4 model.neck.coarsest=3", r"model\.neck needs 2 <= finest < coarsest <= 5"),
    (f"{RETINA} model.neck.lateral=no", r"model\.neck\.lateral=no must be true or false; use model\.neck\.lateral=false"),
    (f"{RETINA} model.neck.extra=foo", r"model\.neck\.extra=foo must be none, pool, conv_c or conv_p"),
    (f"{RETINA} model/neck=hierarchy model.neck.names=[C3,C9]", r"model\.neck.*=C9 is not a level of the backbone; use one of C2, C3, C4, C5"),
    (f"{RETINA} model.neck.spp_kernels=[4]", r"model\.neck\.spp_kernels=\[4\] must be a list of at least 1 entry, each an odd number"),
    (f"{RETINA} model/sampler=rpn model.sampler.size=nan", r"model\.sampler\.size=nan must be a whole number of at least 1; use model\.sampler\.size=256"),
    (f"{RETINA} model.criterion.normalizer=foo", r"model\.criterion\.normalizer=foo must be positives, images, sampled or paper"),
    (f"{RETINA} model.coder.clip=abc", r"model\.coder\.clip=abc must be a number above 0, or null"),
    (f"{RETINA} model/backbone=vgg16 model.backbone.norm=frozen_bn", r"frozen batch norm on random weights"),
    (f"{FRCNN} model.proposals.detect.pre_nms_train=-1", r"model\.proposals\.detect\.pre_nms_train=-1 must be a whole number from 1 to 100000; use model\.proposals\.detect\.pre_nms_train=2000"),
    (f"{FRCNN} model.proposals.head.norm=foo", r"model\.proposals\.head\.norm=foo must be bn, sync_bn or gn, or null"),
    (f"{FRCNN} model/neck=none model/anchors=rpn9 model.proposals.drop_crossing=true", r"drop_crossing=true of the RPN leaves no anchor to learn from: no training image, the largest of 64 x 64 px"),
    (f"{FRCNN} model/neck=none model.neck.level=C4 model/head=tail model/pool=spp", r"model/pool=spp is refused"),
    (f"{SSD} model.anchors.scales=[0.1]", r"model\.anchors\.scales=\[0\.1\] must be a list of at least 2 entries"),
    (f"{SSD} model.anchors.ratios=[0.5]", r"model\.anchors\.ratios=\[0\.5\] must be a list, each a number above 1"),
    (f"{SSD} model/anchors=ssd_formula model.anchors.s_min=0.95", r"model\.anchors needs positive scales"),
    (f"{SSD} model.anchors.scales=[0.1,0.2]", r"model\.anchors has scales for 1 levels, but model\.neck gives"),
    (f"{SSD} 'model.anchors.ratios=[[2],[2]]'", r"model\.anchors\.ratios has 2 lists, but model\.neck gives"),
    (f"{SSD} model/backbone=vgg16 model.neck.blocks_from=32", r"model\.neck\.blocks_from=32 lies behind"),
    (f"{SSD} model.neck.sources=[C3,fc8]", r"model\.neck\.sources=fc8 is not a map of this backbone; use some of"),
    (f"{SSD} 'model.neck.blocks=[[256,512,3,3,1]]'", r"model\.neck\.blocks: \[256, 512, 3, 3, 1\] neither halves"),
    (f"{SSD} 'model.neck.blocks=[[256,512]]'", r"model\.neck\.blocks=\[\[256,512\]\] must be a list, each a list of 5 entries"),
    (f"{ROI} model.pool.context=200", r"model\.pool\.context=200 on both sides leaves nothing of model\.pool\.crop=224"),
    (f"{ROI} model.chunk=0", r"model\.chunk=0 must be a whole number from 1 to 10000; use model\.chunk=256"),
    (f"{ROI} model/backbone=vgg16 model.pool.crop=64", r"model\.pool\.crop=64 gives a map of"),
    (f"{SSD} model/matcher=roi", r"force_best=false with model/sampler=hard_negative is refused .* the loss is exactly 0; use model\.matcher\.force_best=true"),
    ("train model=refinedet model/matcher@model.arm.matcher=roi", r"force_best=false with model/sampler=hard_negative is refused"),
    ("train model=refinedet model.negative_filtering=0", r"model\.negative_filtering=0 must lie in \(0, 1\]"),
    ("train model=sppnet model.train_sizes=[0]", r"model\.train_sizes=\[0\] must be a list of at least 1 entry, each a number above 0"),
    (f"{RETINA} tta=flip tta.scales=[]", r"tta\.scales=\[\] must be a list of 1 to 16 entries"),
]
OPTIONS = [
    ("train optim.lr=abc", r"optim\.lr=abc must be a number above 0; use optim\.lr=0\.001"),
    ("train seed=a", r"seed=a must be a whole number from 0 to 4294967295; use seed=0"),
    ("train optim.lr_scaling=foo", r"optim\.lr_scaling=foo must be linear, sqrt or none; use optim\.lr_scaling=sqrt"),
    ("train resume=no", r"resume=no must be true or false; use resume=false"),
    ("train test=off", r"test=off must be true or false; use test=false"),
    ("train trust=mine", r"trust=mine must be a list, each text; use trust=\[mine\]"),
    ("train data.root=2024", r"data\.root=2024 must be text, or null; use 'data\.root=\"2024\"'"),
    ("train data.on_error=foo", r"data\.on_error=foo must be drop or raise; use data\.on_error=drop"),
    ("train trainer.max_epochs=-1", r"trainer\.max_epochs=-1 must be a whole number of at least 1; use trainer\.max_epochs=12"),
    ("train trainer.precision=foo", r"trainer\.precision=foo must be auto, 32-true"),
    ("train callbacks.nonfinite.check_every=99", r"callbacks\.nonfinite\.check_every=99 must be a whole number from 1 to 50"),
    ("train training=svm model=rcnn training.dtype=foo", r"training\.dtype=foo must be float16 or float32"),
    ("train training=alternating model=faster_rcnn training.hand_over=foo", r"training\.hand_over=foo must be best or last"),
    ("train training=alternating model=faster_rcnn training.stages.rpn_1.lr=-1", r"training\.stages\.rpn_1\.lr=-1 must be a number above 0, or null"),
    ("train ~optim", r"optim was taken away, and detlab train needs it"),
    ("train ~optim.lr", r"optim\.lr was taken away, and \S+ needs it; use optim\.lr=0\.001"),
    ("train ~model.backbone", r"model\.backbone was taken away, and \S+ needs it; use a value or an option of it"),
    ("train ~paths.run_dir", r"paths\.run_dir was taken away, and detlab train needs it"),
    ("train paths=5", r"^paths=5 must be a group of keys; use paths\.run_dir=VALUE"),
    ("train paths=null", r"^paths=null must be a group of keys"),
    ("train paths.run_dir=5", r"^paths\.run_dir=5 must be text"),
    ("train deterministic=5", r"^deterministic=5 must be true or false, or warn; use deterministic=false"),
    ("train monitor=5", r"^monitor=5 must be text, or null"),
    ("train model=ssd data.size=abc", r"^data\.size=abc must be a whole number from 1 to 65535.*; use data\.size=128"),
    ("train data.cache_dir=5 budget=cpu", r"^data\.cache_dir=5 must be text, or null"),
    ("train data.counts=5", r"data\.counts=5 must be a group of keys; use data\.counts\.NAME=VALUE"),
    ("train optim=5", r"optim=5 names no option of the group optim; use one of adamw, sgd"),
    ("train optim=[]", r"optim=\[\] names no option of the group optim; use one of adamw, sgd"),
    ("train optim=[5]", r"optim=\[5\] names no option of the group optim"),
    ("train model/backbone=[]", r"model/backbone=\[\] names no option of the group model/backbone; use one of darknet19"),
    ("train model.head=5", r"model\.head=5 would overwrite a whole group; use model/head=OPTION, one of conv_fc, "),
    ("train model.backbone=null", r"model\.backbone=null would overwrite a whole group; use model/backbone=OPTION"),
    ("train optim={}", r"optim=\{\} changes nothing, .*; use an option, optim=adamw, or single keys, optim\.lr=VALUE"),
    ("train model={}", r"model=\{\} changes nothing, .* single keys, model\.backbone\.weights=VALUE"),
    ("train callbacks={}", r"callbacks=\{\} changes nothing, .*; use callbacks=none\."),
    ("train training={}", r"training=\{\} changes nothing, .*; use an option, training=alternating\."),
    ("train 'data.counts={ }'", r"data\.counts=\{\} changes nothing, .*; use single keys, data\.counts\.train=VALUE"),
    ("train data=voc data.sets={}", r"data\.sets=\{\} changes nothing, .*; use single keys, data\.sets\.train=VALUE"),
    ("train callbacks.nonfinite={}", r"callbacks\.nonfinite=\{\} changes nothing, .* callbacks\.nonfinite\.check_every=VALUE"),
    ("train multiscale={}", r"No option of the group multiscale is chosen; add multiscale=NAME; detlab options multiscale lists them"),
    *((f"train data={one} data.names=[]", r"data\.names=\[\] must be a list of at least 1 entry, each text, or null") for one in ("csv", "voc", "yolo")),
    ("train seed=1" + 400 * "0", r"seed=10+ must be a whole number from 0 to 4294967295"),
    ("train model.coder.clip=1e300", r"model\.coder\.clip=1e\+300 must be a number"),
    ("train model.detect.max_detections=1000000000000", r"max_detections=1000000000000 must be a whole number from 1 to 100000"),
    ("train data.num_workers=100000", r"data\.num_workers=100000 must be a whole number from 0 to 256"),
    ("train data.canvas=[1000000,1000000]", r"data\.canvas=\[1000000,1000000\] must be a list of 2 entries, each a whole number from 1 to 65535"),
    ("train tta=flip tta.scales=[100]", r"tta\.scales=\[100\] must be a list of 1 to 16 entries, each a number above 0 and at most 4"),
    ("train trainer.devices=-1", r"trainer\.devices=-1 means GPUs; give a number of processes, trainer\.devices=1"),
    ("train trainer.profiler=foo", r"trainer\.profiler=foo must be simple, advanced or pytorch"),
    ("train +modell=retinanet", r"There is no option modell; did you mean model\? A key added with \+ is read by your own"),
    ("train trainer.max_time=00:00", r"trainer\.max_time=00:00 must be days:hours:minutes:seconds, such as 00:01:30:00"),
    ("train augment.transforms=[]", r"augment\.transforms=\[\] must be a list of at least 1 entry"),
    ("train threads=1000000000", r"threads=1000000000 must be a whole number from 1 to 4096, or null"),
    ("train trust=[os]", r"trust=\[os\] is Python's own"),
    ("train +model.detect.foo=1", r"detlab\.model\.detect\.Detect has no option 'foo'"),
    ("train +model.detect.topkk=1", r"has no option 'topkk'; did you mean model\.detect\.topk\?"),
    ("train model.neck._target_=nope.FPN", r"model\.neck\._target_=nope\.FPN cannot be imported \(ModuleNotFoundError: No module named 'nope'\)"),
    ("train model=retinanet model/head=roi", r"model/head is refused"),
    ("train model=yolo model/head=conv_fc", r"model/head is refused .* use .*, or with model=yolo model/head=yolo"),
    ("train model=retinanet compile=true", r"compile=true is refused .* use data\.canvas=\[HEIGHT, WIDTH\] with multiscale=null"),
    ("train model=retinanet evaluation_loss=false monitor=val/loss", r"evaluation_loss=false is refused .* use evaluation_loss=true, or monitor=null"),
    ("train model.box_loss=giou", r"use model/box_loss=giou"),
    ("train trainer=gpu", r"trainer\.accelerator=gpu finds no GPU on this machine; use trainer=cpu"),
    ("train trainer=ddp", r"finds no GPU on this machine; use trainer=cpu, or trainer=ddp_cpu"),
    ("train logger=mlflow", r"logger=mlflow needs mlflow; pip install 'mlflow', or use logger=default"),
]
DATA = [
    ("train data.sizes=[30,20]", r"data\.sizes=\[30, 20\] must rise and fit into data\.side=64"),
    ("train data.objects=[4,2]", r"data\.objects=\[4, 2\] must rise"),
    ("train data.classes=[circle]", r"data\.classes names 'circle', which the data set lacks; it has rectangle, ellipse, triangle"),
    ("train data.classes=[ellipse,ellipse]", r"data\.classes names 'ellipse' twice"),
    ("train data.size=[64,64]", r"data\.size=\[64, 64\] needs data\.resize=letterbox or warp"),
    ("train 'data.counts={train: 0, val: 2, test: 2}'", r"The train split has no usable image"),
    ("train 'data.counts={train: 1, val: 0, test: 0}'", r"data\.val_fraction=0\.1 of 1 training images leaves one side empty|The val split has no"),
    ("train data=coco", r"data\.root is not set; give the folder of your"),
    ("train data=coco data.root=/nope", r"data\.root=/nope is not a folder"),
    ("train data=coco data.root={tmp} data.annotations.train=nope.json", r"data\.annotations\.train=nope\.json is not a file under data\.root"),
    ("train data=coco data.root={tmp} data.annotations.train=text.json", r"is not readable as json"),
    ("train data=coco data.root={tmp} data.annotations.train=list.json", r"holds a list, not a COCO object"),
    ("train data=coco data.root={tmp} data.annotations.train=empty.json", r"has no list of objects under 'images'"),
    ("train data=voc data.root={tmp}", r"No object is annotated in"),
    ("train data=yolo", r"data\.root is not set; give your data\.yaml"),
    ("train data=yolo data.root={tmp}/none.yaml", r"is neither a data\.yaml nor a folder with one"),
    ("train data=yolo data.root={tmp}/empty", r"holds no data\.yaml"),
    ("train data=yolo data.root={tmp}/nonames.yaml", r"has no 'names'"),
    ("train data=yolo data.root={tmp}/badnames.yaml", r"'names' is neither a list, nor a map"),
    ("train data=yolo data.root={tmp}/notrain.yaml", r"has no 'train' or 'val' or 'test' entry"),
    ("train data=yolo data.root={tmp}/nofolder.yaml", r"is neither a folder nor a list of images"),
    ("train data=yolo data.root={tmp}/broken.yaml", r"is not readable YAML"),
    ("train model=fast_rcnn data.proposals={tmp}/nope", r"is neither grid nor a file or folder written by detlab proposals"),
    ("train model=fast_rcnn data.proposals={tmp}/text.npz", r"is not a proposal file, or is truncated"),
    ("train model=fast_rcnn data.proposals={tmp}/other.npz", r"is not a file of detlab proposals"),
]
RUNS = [
    ("evaluate run=/nope", r"run=/nope is neither a run folder nor a checkpoint"),
    ("evaluate", r"run must be given \(run folder or checkpoint\); add run=\.\.\."),
    ("evaluate run={tmp}/run split=foo", r"split=foo must be train, val or test; use split=test"),
    ("evaluate run={tmp}/run ckpt=last", r"has no checkpoints/last\.ckpt; use ckpt=best"),
    ("evaluate run={tmp}/empty", r"its training saved none yet"),
    ("evaluate run={tmp}/text.pth", r"is not a checkpoint that loads safely"),
    ("evaluate run={tmp}/other.pth", r"is a checkpoint, but not of detlab train"),
    ("evaluate run={tmp}/bare.ckpt", r"is a checkpoint of another version of detlab"),
    ("evaluate run={tmp}/old.ckpt", r"was written by detlab 0\.0 with its classes elsewhere"),
    ("evaluate run={tmp}/run data.foo=1", r"There is no option data\.foo; the run's data has"),
    ("evaluate run={tmp}/run data.size=abc", r"data\.size=abc must be a whole number from 1 to 65535"),
    ("evaluate run={tmp}/run detect.foo=1", r"There is no option detect\.foo; the run's model has"),
    ("evaluate run={tmp}/run detect.topk=abc", r"detect\.topk=abc must be a whole number of at least 1"),
    ("evaluate run={tmp}/run data=5", r"detlab evaluate chooses no data; change single keys of the run's own, data\.KEY=VALUE"),
    ("evaluate run={tmp}/run trainer=5", r"detlab evaluate chooses no trainer; change single keys, trainer\.KEY=VALUE"),
    ("evaluate run={tmp}/run detect=5", r"detect=5 must be a group of keys; use detect\.NAME=VALUE"),
    ("evaluate run={tmp}/run trainer={}", r"trainer=\{\} changes nothing, .*; use single keys, trainer\.accelerator=VALUE"),
    ("evaluate run={tmp}/run trainer.devices=[]", r"trainer\.devices=\[\] must be .*a list of at least 1 entry"),
    ("predict run={tmp}/run source={}", r"source=\{\} must be text, or a list, each text\."),
    ("predict source=.", r"run must be given"),
    ("predict run={tmp}/run source={tmp}/empty", r"is a folder without images; give an image"),
    ("predict run={tmp}/run source=. runtime=foo", r"runtime=foo must be torch, onnxruntime or openvino; use runtime=torch"),
    ("predict run={tmp}/run source=. precision=fp16", r"precision=fp16 must be fp32 or bf16; use precision=fp32"),
    ("predict run={tmp}/run source={tmp}/JPEGImages runtime=onnxruntime device=cuda", r"device=cuda does not fit runtime=onnxruntime, which runs on a CPU; use device=cpu"),
    ("predict run={tmp}/run source={tmp}/JPEGImages runtime=openvino precision=bf16", r"precision=bf16 does not fit runtime=openvino, which computes in float32; use precision=fp32"),
    ("predict run={tmp}/run source={tmp}/JPEGImages runtime=onnxruntime tta=flip", r"tta does not fit runtime=onnxruntime, which sees each image once; use tta=none"),
    ("export run={tmp}/run batch=0", r"batch=0 must be a whole number of at least 1, or any; use batch=1"),
    ("export run={tmp}/run format=foo", r"format=foo must be onnx or torch_export; use format=onnx"),
    ("proposals method=foo", r"method=foo must be grid, selective_search or rpn; use method=grid"),
    ("proposals method=rpn", r"method=rpn needs run=FOLDER\|FILE"),
    ("proposals method=rpn run={tmp}/run", r"is a RetinaNet, which has no RPN"),
    ("proposals recall={tmp}/nope", r"is neither grid nor a file or folder"),
    ("anchors model=fast_rcnn", r"has no anchors: its boxes come from data\.proposals"),
    ("check batch=/nope", r"batch=/nope is not a file"),
    ("check batch={tmp}/run/checkpoints/best.ckpt", r"is a checkpoint without a batch"),
    ("check steps=0", r"steps=0 must be a whole number of at least 1; use steps=4"),
    ("train model=rcnn model/backbone=resnet50 init_from={tmp}/run", r"init_from=.* fits only \d+ of \d+ tensors"),
    (f"{RETINA} resume=true paths.run_dir={{tmp}}/weights", r"found no checkpoint to go on from in .*holds weights only"),
    ("rerun {tmp}/empty", r"is not a run folder with \.hydra/overrides\.yaml"),
    ("rerun {tmp}/words", r"overrides\.yaml is not a list of overrides"),
    ("rerun {tmp}/strange", r"holds '--help', which no override of a run is"),
    ("report /nope", r"/nope is not a folder"),
    ("report {tmp}/empty", r"holds no run"),
    ("report {tmp}/empty foo=1", r"There is no option foo; there are"),
    ("report {tmp}/empty resamples=abc", r"resamples=abc must be a whole number from 0 on"),
    ("compare {tmp}/empty", r"detlab compare takes two run folders, not 1"),
    ("compare {tmp}/empty {tmp}/empty", r"is not a run folder: there is no \.hydra/config\.yaml"),
    ("compare {tmp}/empty {tmp}/empty images=abc", r"images=abc must be a whole number of at least 0"),
    ("benchmark target=foo", r"target=foo is not known; use one of step"),
    ("benchmark foo", r"foo is not KEY=VALUE"),
    ("benchmark side=1 side=2", r"side is given twice \(1 and 2\)"),
    ("benchmark foo=1", r"There is no option foo here"),
    ("benchmark side=abc", r"side=abc must be a number"),
    ("benchmark model=foo", r"model=foo is not known; use one of"),
    ("benchmark norm=foo", r"norm=foo is not known; use bn or frozen_bn"),
    ("benchmark model=ssd300 side=64", r"side=64 does not fit model=ssd300"),
    ("benchmark precision=foo", r"precision=foo is not known"),
    ("benchmark target=data check=foo", r"check=foo is not known; use one of header, full"),
    ("benchmark target=footprint phase=foo", r"phase=foo is not known; use one of "),
    ("benchmark target=footprint device=foo", r"device=foo is not known here; use fake or cuda"),
    ("benchmark device=cuda", r"device=cuda needs a CUDA GPU, and torch sees none here; use device=cpu"),
    ("benchmark target=inference runtime=foo", r"runtime=foo is not known; use one of torch, onnxruntime, openvino"),
    ("benchmark clock=foo", r"clock=foo is not known"),
    ("benchmark target=scaling factors=foo", r"factors=foo is not known"),
]
TYPED = [  # what Hydra itself refuses, through its own start
    ("train model=retinanett", r"model=retinanett does not exist; did you mean retinanet\?; options: fast_rcnn"),
    (f"train data.classes=[{'a,' * 10_000}a]", r"data\.classes is given 20,016 characters, and Hydra would take minutes .*--config-dir=FOLDER"),
    ("train data=coco data.annotations=[a]", r"data\.annotations=\[a\] must be a group of keys; write data\.annotations\.NAME=VALUE"),
    ("train model=retinanet model.anchors.sizes={a:1}", r"model\.anchors\.sizes=\{a:1\} must be a list"),
    ("train model/nek=fpn", r"There is no option model/nek; did you mean model/neck\?"),
    ("train model=rpn model/pool=spp", r"model/pool is refused.*use model=faster_rcnn"),
    ("train debug=true", r"debug=true names no option of the group debug; use one of fast, limit, overfit, profiler"),
    ("train name=x/../../../y", r"name=x/\.\./\.\./\.\./y leads out of the folder of outputs; give a place by hydra\.run\.dir"),
    ("train model=null", r"model=null names no option of the group model; use one of fast_rcnn, faster_rcnn"),
    ("train model=[ssd]", r"conf/ needs one option of each group in .*; choose one, such as model=retinanet"),
    ("train ++model=ssd", r"\+\+model=ssd chooses an option of a group, which takes no plus; use model=ssd"),
    ("train ''", r" is not KEY=VALUE; write an option and its value"),
    ("train sed=1", r"There is no option sed; did you mean seed\?; keys there: "),
    ("train optim.lrr=1", r"There is no option optim\.lrr; did you mean optim\.lr\?; keys there: "),
    ("train ~optim.lrr", r"~optim\.lrr takes nothing away: There is no option optim\.lrr; did you mean optim\.lr\?"),
    ("train ~model/nek", r"~model/nek takes nothing away: There is no option model/nek; did you mean model/neck\?"),
    ("train +seed=1", r"\+seed adds an option that is there already; use seed=VALUE"),
    ("train seed=1,2", r"seed=1,2 holds several values; add -m to sweep over them, or write 'seed=\[1,2\]' for a list"),
    ("train seed=1 seed=2", r"seed is given twice, seed=1 and seed=2; leave one of the two out"),
    ("train data.limit=train:8 data.limit=val:4", r"data\.limit is given twice.*put the whole argument in quotes"),
    ("train model retinanet", r"model is not KEY=VALUE; write an option and its value with = between them"),
    ("train 'data.limit={train:' 8", r"ends within a bracket; a shell splits braces and lists at blanks"),
    ("train 'val:4}'", r"val:4\} is not KEY=VALUE; a shell splits braces"),
    ("train data.root=/home/müller/a=b", r"cannot be read: its value needs quotes of its own; write 'data\.root=\"/home/müller/a=b\"'"),
    ("train =1", r"=1 cannot be read: it has no option before its ="),
    ("train hydra.job.chdir=abc", r"hydra\.job\.chdir=abc does not fit: .*abc"),
    ("train 'seed=${nope}'", r"^seed cannot be resolved: Interpolation key 'nope' not found"),
    ("train +model=ssd", r"\+model=\.\.\. chooses an option of a group that is there already; use model=\.\.\. without the plus"),
    ("train --foo", r"unrecognized arguments: --foo; detlab train --help lists the flags"),
    ("train --cfg foo", r"argument --cfg/-c: invalid choice: 'foo'.*; detlab train --help lists the flags"),
    ("train -m hydra.sweeper.max_batch_size=0 seed=0,1", r"hydra\.sweeper\.max_batch_size=0 must be at least 1, or null"),
    ("train -m 'seed=interval(0,1)'", r"seed=interval\(0,1\) is an interval, which only a search draws from; add hydra/sweeper=optuna"),
    ("train 'name=${nope}'", r" cannot be resolved: Interpolation key 'nope' not found"),
    ("train optim.lr=abc", r"optim\.lr=abc must be a number above 0; use optim\.lr=0\.001"),
    ("train model.matcher.negative=0.9", r"model\.matcher needs 0 <= negative"),
    ("evaluate", r"run must be given \(run folder or checkpoint\)"),
    ("train +variant/schedule=alternating model=faster_rcnn trainer.max_epochs=3", r"trainer\.max_epochs=3 cannot be shared equally by 4; use trainer\.max_epochs=4"),
    ("train variant/schedule=alternating", r"detlab train chooses no variant/schedule; add it with a plus, \+variant/schedule=CHOICE"),
    ("train --config-dir /nope", r"/nope"),
]
# fmt: on


def make_files(folder: Path) -> None:
    """Small damaged files, folders and checkpoints for the cases above."""
    texts = {
        "text.pth": "text", "text.json": "{", "list.json": "[]", "empty.json": "{}", "text.npz": "text",
        "nonames.yaml": "train: a\n", "badnames.yaml": "names: 3\ntrain: a\n", "notrain.yaml": "names: [a]\n",
        "nofolder.yaml": "names: [a]\ntrain: nope\nval: nope\n", "broken.yaml": "names: [\n",
        "words/.hydra/overrides.yaml": "3", "words/.hydra/config.yaml": "{}",
        "strange/.hydra/overrides.yaml": "[--help]", "strange/.hydra/config.yaml": "{}",
        "Annotations/a.xml": "<annotation/>", "ImageSets/Main/other.txt": "a\n",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("empty", "JPEGImages", "run/checkpoints", "weights/checkpoints"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "JPEGImages" / "a.jpg")
    np.savez(folder / "other.npz", a=np.zeros(1))
    torch.save([1], folder / "list.pth")
    torch.save({"a": torch.zeros(1)}, folder / "other.pth")
    words = ["model=retinanet", *SMALL, *TINY, "name=x", "paths.run_dir=/nowhere"]
    config = plain_config(compose_config("train", words))
    state = {f"detector.{k}": v for k, v in make_detector(config["model"], 3).state_dict().items()}
    names = ["rectangle", "ellipse", "triangle"]
    facts = {"config": json.loads(json.dumps(config)), "class_names": names, "category_ids": [1, 2, 3]}
    whole = facts | {"layout": LAYOUT, "version": "0.1"}
    for name, content in {
        "run/checkpoints/best.ckpt": whole,
        "weights/checkpoints/last.ckpt": whole,
        "bare.ckpt": {"layout": LAYOUT},
        "old.ckpt": facts | {"version": "0.0", "layout": 1},
    }.items():
        torch.save({"state_dict": state, CHECKPOINT_KEY: content}, folder / name)
    write_tables(folder)
    write_checkpoints(folder, whole, state)
    write_run(folder / "done", ["seed=0"])
