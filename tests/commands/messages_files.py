"""Command lines that read damaged files of data, checkpoints and run folders. {tmp} is what `make_files` has filled."""

# ruff: noqa: E501 - a case is a row
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detlab.model.backbones import ResNet
from detlab.runs.checkpoints import CHECKPOINT_KEY

COCO = "train data=coco data.root={tmp}/coco data.images.train=images"
VOC = "train data=voc data.root={tmp}/voc"
YOLO = "train data=yolo data.root={tmp}/yolo"
CSV = "train data=csv data.root={tmp}/csv"
DARK = "train model=yolo model/backbone=darknet53"

# fmt: off
FILES = [
    (f"{COCO} data.annotations.train={{tmp}}/list.json", r"data\.annotations\.train=.*/list\.json leaves data\.root=.*/coco; set data\.outside_root=true if it"),
    ("train data=coco data.root={tmp}/empty", r"data\.annotations names no file; give data\.annotations\.train=FILE\.json; .*/empty has no json file"),
    ("train data=coco data.root={tmp}/coco data.annotations.train=good.json data.images.train=nope", r"data\.images\.train=nope is not a folder of .*/coco; give the folder of its images"),
    ("train data=coco data.root={tmp}/coco data.annotations.train=good.json data.images.train={tmp}/empty", r"data\.images\.train=.*/empty leaves .*/coco; set data\.outside_root=true if it is yours"),
    (f"{COCO} data.annotations.train=noname.json", r"noname\.json: the category \{'id': 1\} needs a name, and a whole number or text as id"),
    (f"{COCO} data.annotations.train=sameid.json", r"sameid\.json: categories 'cat' and 'dog' have the same id 1; renumber one"),
    (f"{COCO} data.annotations.train=samename.json", r"samename\.json: two categories are named 'cat', ids 1 and 2; rename one, or give both one id"),
    (f"{COCO} data.annotations.train=noclass.json", r"noclass\.json names no class under 'categories'"),
    (f"{COCO} data.annotations.train=noid.json", r"noid\.json: 'id' of \{'id': None, 'file_name': 'a\.jpg', 'width': 64, 'height': 64\} is no whole"),
    (f"{COCO} data.annotations.train=dirty.json data.on_error=raise", r"The data has 1 error, 'degenerate box' \(1, such as a\.jpg \[4\.0, 4\.0, 3\.0, 13\.0\]\); mend the"),
    (f"{COCO} data.annotations.train=good.json data.val_fraction=0.5", r"data\.val_fraction=0\.5 .*of 1 training images leaves val empty; the data set has no val"),
    (f"{COCO} data.annotations.train=good.json data.annotations.val=nobox.json data.images.val=images", r"No image of the val split has a box that counts, so monitor=val/map is not defined; the"),
    (f"{COCO} data.annotations.train=nobox.json data.annotations.val=good.json data.images.val=images", r"No image of the train split has a box to learn from; the audit's largest loss is 'image"),
    (f"{COCO} data.annotations.train=good.json data.annotations.val=good.json data.images.val=images data.canvas=[32,32]", r"data\.canvas=\[32, 32\] is smaller than an image of \(800, 800\); enlarge it, or lower data\.size or"),
    (f"{VOC} data.sets.train=null data.sets.val=null data.sets.test=null", r"data\.sets names no list; give data\.sets\.train=train, a file of ImageSets/Main"),
    ("train data=voc data.root={tmp}/empty", r"data\.root=.*/empty has no annotations; give data\.annotations=FOLDER with the XML files, or"),
    (f"{VOC} data.annotations=nope", r"data\.annotations=nope is not a folder of .*/voc; it has Annotations, ImageSets"),
    (f"{VOC} data.sets.train=nope", r"data\.sets\.train=nope has no list ImageSets/Main/nope\.txt in .*/voc; it has dtd, folder, good"),
    (f"{VOC} data.sets.train=dtd data.on_error=raise", r"a\.xml declares a DTD, whose entities could fill the memory; remove the declaration or the file"),
    (f"{VOC} data.names=[a,a]", r"data\.names names two classes 'a' \(places 0 and 1\); rename one, or give both the same id, so"),
    (f"{YOLO}/nolabels.yaml", r"None of the 1 images of train has a label file in .*nolabels\.yaml \(searched: .*labels, .*images"),
    (f"{YOLO}/text.yaml", r"text\.yaml holds no keys; a YOLO data\.yaml has train, val and names"),
    (f"{YOLO}/textkey.yaml", r"textkey\.yaml: 'names' must be a list, or a map from whole numbers to names, and not empty"),
    (f"{YOLO}/twice.yaml", r"twice\.yaml: 'names' gives one number to two classes"),
    (f"{YOLO}/map.yaml", r"map\.yaml: train=\{'a': 'b'\} is neither a folder nor a list of images"),
    (f"{YOLO}/pipe.yaml", r"pipe\.txt is no regular file"),
    (f"{VOC} data.sets.train=folder", r"The list .*folder\.txt is no regular file"),
    ("train training=alternating model=faster_rcnn +training.stages.rpn_1.foo=1", r"There is no option training\.stages\.rpn_1\.foo; keys there: max_epochs, lr"),
    ("predict run={tmp}/notarget.ckpt source={tmp}/JPEGImages", r"/notarget\.ckpt: its model has no _target_; give a checkpoint as detlab train wrote it"),
    (f"{YOLO}/nc.yaml", r"nc\.yaml: 'nc' is 2, but 'names' has 1; correct the one that is wrong"),
    (f"{YOLO}/points.yaml", r"points\.yaml: kpt_shape must be \[COUNT, 2\] or \[COUNT, 3\], not \['3'\]"),
    (f"{YOLO}/path.yaml", r"path\.yaml: its 'path' \.\./coco leaves its folder; data\.outside_root=true follows links and"),
    (CSV, r"data\.annotations names no file; give data\.annotations\.train=FILE\.csv; .*/csv has blank\.csv, columns\.csv"),
    ("train data=csv data.root={tmp}/empty", r"data\.annotations names no file; give data\.annotations\.train=FILE\.csv; .*/empty has no CSV file"),
    ("train data=csv data.root={tmp}/nope", r"data\.root=.*/nope is not a folder; give the folder of your images and CSV files"),
    (f"{CSV} data.annotations.train=nope.csv", r"data\.annotations\.train=nope\.csv is not a file under data\.root=.*/csv; give its path"),
    (f"{CSV} data.annotations.train=../yolo/text.yaml", r"data\.annotations\.train=\.\./yolo/text\.yaml leaves data\.root=.*/csv; set data\.outside_root=true"),
    (f"{CSV}/columns.csv", r"data\.annotations\.train=columns\.csv has the columns filename, class; it needs the titles filename, class, and xmin, ymin"),
    (f"{CSV}/blank.csv", r"data\.annotations\.train=blank\.csv is empty"),
    (f"{CSV}/noboxes.csv", r"noboxes\.csv has no row with a box and a class; see its columns"),
    (f"{CSV}/shares.csv", r"data\.annotations\.train=shares\.csv has x, y, w, h as shares of the image, where x, y may be a corner"),
    (f"{CSV}/split.csv", r"split\.csv has a row of the split 'holdout', which is not known; write train, val or test"),
    (f"{CSV}/good.csv data.images=nope", r"data\.images=nope is not a folder of .*/csv; give the folder of your images"),
    (f"{CSV}/good.csv data.images=../yolo", r"data\.images=\.\./yolo leaves .*/csv; data\.outside_root=true follows links and"),
    (f"{CSV}/good.csv data.unlisted=all", r"data\.unlisted=all must be ignore or empty; use data\.unlisted=ignore"),
    (f"{CSV}/good.csv", r"The train split has no usable image; the audit's largest loss is 'missing image' \(1 in train, such as a\.jpg\)"),
    (f"{YOLO}/number.yaml", r"number\.yaml: train=3 is neither a folder nor a list of images under .*/yolo"),
    (f"{YOLO}/samename.yaml", r"samename\.yaml names two classes 'a' \(places 0 and 1\); rename one, or give both the same id"),
    (f"{YOLO}/blank.yaml", r"blank\.yaml: class 1 has no name; give it one"),
    (f"{YOLO}/nolabels.yaml data.labels=nope", r"data\.labels=nope is not a folder of .*/yolo; it has images"),
    (f"{DARK} model.backbone.weights=imagenet", r"model\.backbone\.weights=imagenet is torchvision's, which has no Darknet; give the path of a"),
    (f"{DARK} model.backbone.weights=/nope.pth", r"model\.backbone\.weights=/nope\.pth is no file; give null for random weights, or the path of a"),
    (f"{DARK} model.backbone.weights=/nope.weights", r"model\.backbone\.weights=/nope\.weights is no file; give the path of a darknet \.weights or"),
    (f"{DARK} model.backbone.weights={{tmp}}/short.weights", r"model\.backbone\.weights=.*/short\.weights has 8 bytes, which is less than darknet's header"),
    (f"{DARK} model.backbone.weights={{tmp}}/version.weights", r"model\.backbone\.weights=.*/version\.weights ends after 0 numbers, but the network needs more"),
    (f"{DARK} model.backbone.weights={{tmp}}/odd.weights", r"model\.backbone\.weights=.*/odd\.weights has 23 bytes, no whole number of float32 behind its header"),
    (f"{DARK} model.backbone.weights={{tmp}}/few.weights", r"model\.backbone\.weights=.*/few\.weights ends after 100 numbers, but the network needs more"),
    (f"{DARK} model.backbone.weights={{tmp}}/nan.weights", r"model\.backbone\.weights=.*/nan\.weights holds a number that is not finite \(place 0 of 100\)"),
    ("predict run={tmp}/nan.ckpt source={tmp}/JPEGImages", r"/nan\.ckpt holds weights that are not finite or variances below 0, in 1 of 108 tensors \(first: backbone\.conv1\.weight\)"),
    ("predict run={tmp}/double.ckpt source={tmp}/JPEGImages", r"/double\.ckpt holds weights that are not finite or variances below 0, in 1 of 108 tensors"),
    ("predict run={tmp}/complex.ckpt source={tmp}/JPEGImages", r"/complex\.ckpt: its weights have complex numbers in backbone\.conv1\.weight; give a checkpoint"),
    ("predict run={tmp}/whole.ckpt source={tmp}/JPEGImages", r"/whole\.ckpt: its weights have whole numbers in backbone\.conv1\.weight; give a checkpoint"),
    ("evaluate run={tmp}/variance.ckpt", r"/variance\.ckpt holds weights that are not finite or variances below 0, in 1 of 108 tensors"),
    ("evaluate run={tmp}/precision.ckpt", r"/precision\.ckpt was trained with trainer\.precision=99-x, which is none; use trainer\.precision=auto"),
    ("evaluate run={tmp}/nan.ckpt", r"/nan\.ckpt holds weights that are not finite or variances below 0, in 1 of 108 tensors"),
    ("train model=retinanet init_from={tmp}/nan.ckpt", r"/nan\.ckpt holds weights that are not finite or variances below 0, in 1 of 108 tensors"),
    ("predict run={tmp}/wide.ckpt source={tmp}/JPEGImages", r"/wide\.ckpt: its model has head\.cls_tower\.0\.weight of \[1000000000, 64, 3, 3\], but its weights"),
    ("predict run={tmp}/deep.ckpt source={tmp}/JPEGImages", r"/deep\.ckpt: its model has more than 4960 layers, but its weights are 108 tensors; give a"),
    ("predict run={tmp}/unlike.ckpt source={tmp}/JPEGImages", r"/unlike\.ckpt: its model has a tensor head\.box_tower\.2\.bias, unlike its weights; give a"),
    ("predict run={tmp}/words.ckpt source={tmp}/JPEGImages", r"/words\.ckpt: model\.head\.width=abc must be a whole number of at least 1, or null; use"),
    ("predict run={tmp}/noclasses.ckpt source={tmp}/JPEGImages", r"/noclasses\.ckpt: num_classes=0 must be at least 1; it comes from the data set's classes"),
    ("predict run={tmp}/nomodel.ckpt source={tmp}/JPEGImages", r"/nomodel\.ckpt is no checkpoint of detlab train: its config has no model"),
    ("predict run={tmp}/nobackbone.ckpt source={tmp}/JPEGImages", r"/nobackbone\.ckpt is no checkpoint of detlab train: its model has no backbone"),
    ("predict run={tmp}/names.ckpt source={tmp}/JPEGImages", r"/names\.ckpt is no checkpoint of detlab train: its class_names or category_ids are no such"),
    ("predict run={tmp}/step.ckpt source={tmp}/JPEGImages", r"/step\.ckpt is damaged: its global_step is no number"),
    ("predict run={tmp}/aslist.ckpt source={tmp}/JPEGImages", r"The config of .*/aslist\.ckpt is no map of keys"),
    ("predict run={tmp}/nested.ckpt source={tmp}/JPEGImages", r"/nested\.ckpt is not a checkpoint that loads safely"),
    ("predict run={tmp}/interpolated.ckpt source={tmp}/JPEGImages", r"The config of .*/interpolated\.ckpt holds '\$\{oc\.env:HOME\}' at model\.head\.width, where a resolved"),
    ("predict run={tmp}/system.ckpt source={tmp}/JPEGImages", r"The config of .*/system\.ckpt names os\.system at model\.head, which is not trusted there; conf/"),
    ("predict run={tmp}/own.ckpt source={tmp}/JPEGImages trust=[nope]", r"The config of .*/own\.ckpt names nope\.Head at model\.head, which cannot be imported"),
    ("predict run={tmp}/own.ckpt source={tmp}/JPEGImages trust=[a-b]", r"trust=\[a-b\] is no name of a package; write trust=\[my_package\]"),
    ("predict run={tmp}/own.ckpt source={tmp}/JPEGImages trust=[os]", r"trust=\[os\] is Python's own and would run anything; trust packages of your own only"),
    ("predict run={tmp}/own.ckpt source={tmp}/JPEGImages trust=[torch]", r"trust=\[torch\] would open a library; name the one class that you mean in full, such as"),
    ("predict run={tmp}/run source=/nope", r"source=/nope is not there; give an image, a folder of images, a pattern such as"),
    ("predict run={tmp}/run source=[/nope]", r"source=/nope is not there; give an image, a folder of images, a pattern such as"),
    ("predict run={tmp}/run source=[]", r"source=\[\] names no image; give an image, a folder of images, a pattern"),
    ("predict run={tmp}/run 'source=/nope/*.jpg'", r"source=/nope/\*\.jpg is a pattern that no image matches; give an image, a folder"),
    ("predict run={tmp}/run source={tmp}/JPEGImages classes=[cat]", r"classes=\['cat'\] names 'cat', which the model lacks; it has rectangle, ellipse, triangle"),
    ("predict run={tmp}/run source={tmp}/JPEGImages classes=[]", r"classes=\[\] must be a list of at least 1 entry, each text, or null; use classes=null"),
    ("evaluate run={tmp}/notrainer.ckpt", r"/notrainer\.ckpt holds a config without trainer, metrics, augment, seed or monitor"),
    ("evaluate run={tmp}/metrics.ckpt", r"/metrics\.ckpt holds a config without trainer, metrics, augment, seed or monitor"),
    ("check batch={tmp}/batch.ckpt", r"batch=.*/batch\.ckpt holds a batch of other parts than detlab writes \(Batch\.__new__\(\) got an"),
    ("rerun {tmp}/mixed", r"overrides\.yaml is not a list of overrides"),
    ("rerun {tmp}/long", r"/long is not a run folder with \.hydra/overrides\.yaml: .*overrides\.yaml holds a value of 20005"),
    ("rerun {tmp}/foreign", r"overrides\.yaml holds 'foo\.bar=1'; a run of detlab has no such key to take"),
    ("rerun {tmp}/file", r"overrides\.yaml holds 'model=\.\./\.\./x', which is no option of conf/"),
    ("rerun {tmp}/good \"out={tmp}/a'b\"", r"has a quote, a backslash or a dollar sign in its name; use another"),
    ("report ''", r"An argument is empty, as of a shell variable that is not set; give a folder"),
    ("report {tmp}/empty follow=foo", r"follow=foo must be true or false"),
    ("report /nope follow=true", r"/nope is not a folder; give run folders, or folders that hold some"),
    ("report {tmp}/done metric=foo", r"metric=foo is in no result; give metric=NAME, one of ap/ellipse, ap/rectangle, map, map_50"),
    ("report {tmp}/done baseline=foo", r"baseline=foo has no run with a result; swept are seeds alone"),
    ("train model=retinanet resume=true paths.run_dir={tmp}/othermodel", r"resume=true found no checkpoint to go on from in .*checkpoints: .*last\.ckpt is of another model"),
    ("train model=faster_rcnn training=alternating paths.run_dir={tmp}/stages", r"/stages holds an unfinished run \(stages\); resume=true goes on with it, and another folder"),
    ("pretrain model/backbone=vgg16", r"detlab pretrain makes weights of ResNets; use model/backbone=resnet18"),
    ("pretrain data.cache_dir=null", r"detlab pretrain keeps its weights in data\.cache_dir; leave out data\.cache_dir=null"),
    ("pretrain model/backbone=nope", r"model/backbone=nope does not exist; options: darknet19, darknet53, extraction, resnet101"),
    ("ablate neck --foo", r"detlab ablate has no --foo; preview=true shows what it would run"),
    ("ablate neck --config-dir", r"--config-dir needs the folder of your own options; write --config-dir=FOLDER"),
    ("ablate neck \"--config-dir={tmp}/o'n\"", r"o'n\" has a quote or the like in its name; use another folder"),
    ("ablate neck --config-dir=nowhere", r"--config-dir=nowhere is no folder"),
    ("ablate neck optim", r"detlab ablate takes one ablation, not neck and optim; give each a command"),
    ("ablate neck min_seeds=4", r"min_seeds is for until=decided; without it, seed=0,1,2 names the seeds"),
    ("ablate neck until=decided min_seeds=9", r"min_seeds=9 is more than max_seeds=8; give it at most 8"),
    ("ablate neck max_seeds=4", r"max_seeds is for until=decided; without it, seed=0,1,2 names the seeds"),
    ("ablate neck until=foo", r"until=foo is not known; use one of decided"),
    ("ablate neck preview=foo", r"preview=foo must be true or false"),
    ("ablate neck,loss", r"neck,loss names several ablations, each with rows of its own; give one, and one command to each"),
    ("ablate neck ablation=loss", r"neck and loss are several ablations; give one, and one command to each"),
    ("ablate neck seed=1,1", r"seed is swept over 1 twice; give each value once"),
    ("ablate neck hydra/launcher=basic", r"hydra/launcher=basic is no choice of detlab ablate, which runs given rows and"),
    ("ablate neck answer=test/mpa", r"answer=test/mpa is no metric of the final test of these rows; use answer=test/NAME, such as map"),
    ("ablate neck max_sedes=3 until=decided", r"detlab ablate has no option max_sedes; did you mean max_seeds\?"),
    ("ablate seed=0", r"Nothing is swept: name an ablation, or give a key several choices, as in model/neck=fpn,none"),
    ("ablate nek", r"ablation=nek does not exist; did you mean neck\?; options: alternating_or_joint"),
    ("ablate 'optim.lr=interval(0,1)'", r"optim\.lr=interval\(0,1\) has no end of values; use choices, or hydra/sweeper=optuna with detlab"),
    ("ablate 'optim.lr=x,abc' model=retinanet budget=cpu probe=false", r"Every row is refused: optim\.lr=x must be a number above 0"),
    ("ablate 'model/neck=glob(*)'", r"model/neck=glob\(\*\) needs its options written out here, as in model/neck=a,b"),
    ("ablate 'optim.lr=range(1,1)'", r"optim\.lr=range\(1,1\) has no value; a range leaves out its end"),
    ("ablate neck seed=a", r"seed=a must be a whole number, or several, as in seed=0,1,2"),
    ("ablate neck max_seeds=²", r"max_seeds=² must be a whole number from 2 on"),
    ("benchmark clock=cpu threads=2", r"clock=cpu adds up the time of all threads; use threads=1 on a CPU, or clock=wall"),
    ("benchmark target=metrics backend=foo", r"backend=foo is not known; use one of pycocotools, faster_coco_eval"),
    ("anchors model=retinanet split=test data.objects=[0,0]", r"split=test has no boxes to cover; use another split"),
    ("train data.objects=[0,0]", r"No image of the train split has a box to learn from; the audit's largest loss is 'image"),
    ("train 'data.counts={trian: 4, val: 2, test: 2}'", r"There is no option data\.counts\.trian; did you mean data\.counts\.train\?; keys there: train, val"),
    ("train model=yolov2 model.neck.squeeze=3", r"model\.neck needs squeeze null or a multiple of 4 and convs not negative; got squeeze=3, convs=2"),
    ("train model=yolov1 model/neck=yolo_fpn", r"model\.head reads one map, but model\.neck gives 3; use model/neck=yolo_grid, or model/head=yolo"),
    ("train model=ssd model.anchors.levels=[C3]", r"model\.anchors\.levels=\['C3'\] lacks C4, C5, extra2, which model\.neck gives; name all of its"),
    ("train model=faster_rcnn model/head=tail", r"model\.head\.body=tail \(model/head=tail\) is refused \(the backbone's tail on a pyramid\): conv5 \(fc6 on VGG\) reads one C4"),
    ("train model=rcnn model/pool=roi_align", r"model/pool is refused \(a pool of maps on R-CNN\): R-CNN has no map of the whole image to pool"),
    ("train model=yolo model/head=retinanet", r"model/head is refused \(a head without objectness on YOLO\): YOLO's loss and scores need an"),
    ("report {tmp}/done reload=abc", r"reload=abc must be a whole number of seconds, or null"),
    ("report {tmp}/empty resamples=²", r"resamples=² must be a whole number from 0 on"),
    ("benchmark side=²", r"side=² must be a number, such as side=320"),
    ("data data=shapes json={tmp}/empty", r"json=.*/empty cannot be written \(Is a directory\); give a file in a folder of yours"),
    ("evaluate run={tmp}/run data=coco", r"detlab evaluate chooses no data; change single keys of the run's own, data\.KEY=VALUE"),
    ("train variant/schedule=alternating", r"detlab train chooses no variant/schedule; add it with a plus, \+variant/schedule=CHOICE"),
    ("train multiscale=yolo +multiscale.factors=[1]", r"multiscale needs positive sizes or factors \(not both\), every >= 1 and last >= 0; got"),
    ("train data.canvas=[32,32]", r"data\.canvas=\[32, 32\] is smaller than an image of \(64, 64\); enlarge it, or lower data\.size or"),
    ("predict run={tmp}/datasize.ckpt source={tmp}/JPEGImages", r"/datasize\.ckpt: data\.size=abc must be a whole number from 1 to 65535, or a list of 2 entries"),
    ("predict run={tmp}/largesize.ckpt source={tmp}/JPEGImages", r"/largesize\.ckpt holds data\.size=60000, canvases of more than 100,000,000 px"),
    ("predict run={tmp}/nosize.ckpt source={tmp}/JPEGImages", r"/nosize\.ckpt is no checkpoint of detlab train: its data has no _target_ or no size"),
    ("proposals method=rpn run={tmp}/wide.ckpt", r"/wide\.ckpt: its model has head\.cls_tower\.0\.weight of \[1000000000, 64, 3, 3\], but its weights"),
    ("evaluate run={tmp}/wide.ckpt data.counts={train:2,val:2,test:2}", r"/wide\.ckpt: its model has head\.cls_tower\.0\.weight of \[1000000000, 64, 3, 3\], but its weights"),
    ("train model=yolo model/backbone=darknet53 model.backbone.weights={tmp}/text.pth", r"model\.backbone\.weights=.*/text\.pth is not a checkpoint that loads with weights_only=True"),
    ("evaluate run={tmp}/deep.ckpt data.counts={train:2,val:2,test:2}", r"/deep\.ckpt: its model has more than 4960 layers, but its weights are 108 tensors; give a"),
]
# fmt: on


def write_tables(folder: Path) -> None:
    """Annotations and data sets, each with one mistake."""
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20]}
    one = [{"id": 1, "name": "cat"}]
    tables = {
        "good": ([image], [box], one),
        "nobox": ([image], [], one),
        "noname": ([image], [box], [{"id": 1}]),
        "sameid": ([image], [box], [*one, {"id": 1, "name": "dog"}]),
        "samename": ([image], [box], [*one, {"id": 2, "name": "cat"}]),
        "noclass": ([image], [], []),
        "noid": ([image | {"id": None}], [], one),
        "dirty": ([image], [box | {"bbox": [4, 4, -1, 9]}], one),
    }
    images = folder / "coco" / "images"
    images.mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(images / "a.jpg")
    for name, (pictures, boxes, kinds) in tables.items():
        content = {"images": pictures, "annotations": boxes, "categories": kinds}
        (folder / "coco" / f"{name}.json").write_text(json.dumps(content))
    texts = {
        "voc/ImageSets/Main/good.txt": "a\n", "voc/ImageSets/Main/dtd.txt": "a\n", "voc/Annotations/a.xml": '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>',
        "yolo/nolabels.yaml": "names: [a]\ntrain: images\nval: images\n", "yolo/text.yaml": "just words\n",
        "yolo/textkey.yaml": "names: {a: b}\ntrain: images\nval: images\n",
        "yolo/twice.yaml": "names: {1: a, '01': b}\ntrain: images\nval: images\n",
        "yolo/nc.yaml": "names: [a]\nnc: 2\ntrain: images\nval: images\n",
        "yolo/points.yaml": "names: [a]\nkpt_shape: [3]\ntrain: images\nval: images\n",
        "yolo/path.yaml": "names: [a]\npath: ../coco\ntrain: pictures\nval: pictures\n",
        "yolo/number.yaml": "names: [a]\ntrain: 3\nval: images\n",
        "yolo/samename.yaml": "names: [a, a]\ntrain: images\nval: images\n",
        "yolo/blank.yaml": "names: [a, '']\ntrain: images\nval: images\n",
        "yolo/map.yaml": "names: [a]\ntrain: {a: b}\nval: images\n",
        "yolo/pipe.yaml": "names: [a]\ntrain: pipe.txt\nval: images\n",
        "csv/columns.csv": "filename,class\na.jpg,a\n", "csv/blank.csv": "", "csv/noboxes.csv": "filename,class,xmin,ymin,xmax,ymax\na.jpg,,,,,\n",
        "csv/shares.csv": "filename,class,x,y,w,h\na.jpg,a,0.1,0.1,0.5,0.5\n",
        "csv/split.csv": "filename,class,xmin,ymin,xmax,ymax,split\na.jpg,a,1,1,9,9,holdout\n",
        "csv/good.csv": "filename,class,xmin,ymin,xmax,ymax\na.jpg,a,1,1,9,9\n",
        "mixed/.hydra/overrides.yaml": "[3, seed=1]", "long/.hydra/overrides.yaml": f"[seed={'1' * 20000}]",
        "foreign/.hydra/overrides.yaml": "[foo.bar=1]", "file/.hydra/overrides.yaml": "[model=../../x]",
        "place/.hydra/overrides.yaml": "[data.cache_dir=/x]", "good/.hydra/overrides.yaml": "[seed=1]",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "yolo" / "images").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "yolo" / "images" / "a.jpg")
    os.mkfifo(folder / "yolo" / "pipe.txt")
    (folder / "voc" / "ImageSets" / "Main" / "folder.txt").mkdir()
    head = np.array([0, 2, 0, 0, 0], np.int32).tobytes()
    files = {"short": head[:8], "version": np.array([9, 9, 9, 9, 9], np.int32).tobytes(), "odd": head + b"abc"}
    files |= {"few": head + bytes(400), "nan": head + np.full(100, np.nan, np.float32).tobytes()}
    for name, content in files.items():
        (folder / f"{name}.weights").write_bytes(content)


def write_checkpoints(folder: Path, facts: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """Checkpoints of which one thing is wrong each."""

    def changed(place: str, value: Any) -> dict[str, Any]:
        config = json.loads(json.dumps(facts["config"]))
        *parents, last = place.split(".")
        node = config
        for key in parents:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
        return {"config": config}

    nested: Any = ["x"]
    for _ in range(2000):
        nested = [nested]
    wrong: dict[str, dict[str, Any]] = {
        "wide": changed("model.head.width", 10**9),
        "deep": changed("model.neck.spp_kernels", [3] * 6000),
        "unlike": changed("model.head.depth", 3),
        "words": changed("model.head.width", "abc"),
        "noclasses": {"class_names": [], "category_ids": []},
        "nomodel": changed("model", None),
        "nobackbone": changed("model.backbone", None),
        "notarget": changed("model._target_", None),
        "names": {"class_names": "abc"},
        "aslist": {"config": [1]},
        "nested": changed("model.head.width", [["x"] * 60_000]),
        "interpolated": changed("model.head.width", "${oc.env:HOME}"),
        "system": changed("model.head._target_", "os.system"),
        "own": changed("model.head._target_", "nope.Head"),
        "datasize": changed("data.size", "abc"),
        "largesize": changed("data.size", 60_000),
        "nosize": changed("data.size", None),
        "notrainer": changed("trainer", None),
        "metrics": changed("metrics", 5),
        "precision": changed("trainer.precision", "99-x"),
    }
    for name, part in wrong.items():
        torch.save({"state_dict": state, CHECKPOINT_KEY: facts | part}, folder / f"{name}.ckpt")
    torch.save({"state_dict": state, CHECKPOINT_KEY: facts, "global_step": "x"}, folder / "step.ckpt")
    first = "detector.backbone.conv1.weight"
    odd = {"nan": state[first] / 0, "double": state[first].double() + 1e300, "complex": state[first] * 1j}
    odd["whole"] = state[first].to(torch.int8)
    for name, value in odd.items():
        torch.save({"state_dict": state | {first: value}, CHECKPOINT_KEY: facts}, folder / f"{name}.ckpt")
    last = "detector.head.cls.weight"
    large = state | {last: torch.full_like(state[last], 3e38)}
    torch.save({"state_dict": large, CHECKPOINT_KEY: facts}, folder / "overflow.ckpt")
    variance = next(name for name in state if name.endswith("running_var"))
    torch.save(
        {"state_dict": state | {variance: state[variance] * 0 - 1}, CHECKPOINT_KEY: facts}, folder / "variance.ckpt"
    )
    trunk = ResNet(depth=18).state_dict()
    torch.save({"state_dict": trunk | {"conv1.weight": trunk["conv1.weight"] / 0}}, folder / "nan.pth")
    torch.save(trunk | {"conv1.weight": trunk["conv1.weight"].to(torch.int8)}, folder / "whole.pth")
    torch.save({"state_dict": state, CHECKPOINT_KEY: facts, "batch": {"x": 1}, "step": 1}, folder / "batch.ckpt")
    for name in ("othermodel/checkpoints", "stages/stages", "nostage/stages/1-rpn", "o'n"):
        (folder / name).mkdir(parents=True)
    taken = {"optimizer": {"step": {"total": {"completed": 1}}}}
    loop = {"epoch_progress": {"current": {"completed": 0}}, "epoch_loop.automatic_optimization.optim_progress": taken}
    resumable = {"state_dict": state, CHECKPOINT_KEY: facts, "optimizer_states": [{}], "lr_schedulers": [{}]}
    resumable |= {"global_step": 1, "epoch": 0, "loops": {"fit_loop": loop}}
    torch.save(resumable, folder / "othermodel" / "checkpoints" / "last.ckpt")
    (folder / "nostage" / "stages" / "1-rpn" / "done.json").write_text("[]")
