"""Messages that neither messages.py nor in_python.py reaches: why, and the test that shows each.

By (file below src/detlab, first words of the text as `saying.sites` has them); the words may be `*`, all of a file.
"""

PYTHON = "only a call from Python"
RANKS = "takes several processes"
DISK = "takes a file or folder that changes while the command runs"
NETWORK = "takes a network, or its failure"
TOLD = "told within the message of whoever asked"
SECOND = "stands behind a refusal that comes first"
PACKAGE = "takes an environment without a package"

ONE = "tests/commands/test_messages.py::test_a_mistake_is_told_in_one_sentence"
BOMBS = "tests/runs/test_safety.py::test_image_bombs_are_refused_before_they_are_decoded"
STORED = "takes a checkpoint that training wrote"
RESUMED = "tests/training/test_reliability.py::test_a_checkpoint_that_was_changed_"
OPTIONS_OF = "tests/training/test_reliability.py::test_options_that_a_run_"
STRANGERS = "tests/runs/test_safety.py::test_run_folders_from_strangers"
FOLDERS = "tests/runs/test_folder.py::test_folders_that_are_none_or_two_are_refused"
OWN = "tests/runs/test_safety.py::test_folders_of_ones_own_"
ODD = "tests/runs/test_safety.py::test_odd_files_in_a_folder_of_ones_own_are_one_sentence"
DARKNET = "tests/model/backbones/test_darknet.py::test_a_file_that_is_not_consumed_exactly_is_refused"

UNSAID: dict[tuple[str, str], tuple[str, str]] = {
    ("benchmark/options.py", "{key}={text} must be true or false."): (
        PYTHON,
        "tests/benchmark/test_options.py::test_mistakes",
    ),
    ("commands/options.py", "*"): (
        "a command without a config",
        "tests/commands/test_options.py::test_mistakes_are_one_sentence",
    ),
    ("commands/evidence.py", "*"): (
        "a command without a config",
        "tests/commands/test_evidence.py::test_mistakes_are_one_sentence",
    ),
    ("report/evidence.py", "*"): (
        "a command without a config",
        "tests/report/test_evidence.py::test_mistakes_in_the_list_are_sentences",
    ),
    ("report/detections.py", "*"): (TOLD, "tests/report/test_damaged.py::test_damaged_boxes_are_named"),
    ("report/matched.py", "*"): (TOLD, "tests/report/test_damaged.py::test_pipes_are_not_waited_for"),
    ("commands/report.py", "{place} is a link; give the folder of the report"): (
        "told by another test",
        "tests/report/test_damaged.py::test_a_lock_does_not_follow_a_link",
    ),
    ("report/kept.py", "*"): (
        "a command without a config",
        "tests/report/test_evidence.py::test_files_that_do_not_fit_are_refused",
    ),
    ("config/catalogue.py", "_unknown(group, name, known)"): (
        "a command without a config",
        "tests/config/test_catalogue.py::test_what_is_near_is_named",
    ),
    ("config/repeated.py", "{source} holds {word[:120]!r}; an interpolation "): ("told by another test", STRANGERS),
    ("data/formats/coco_cache.py", "*"): (
        "heard by nobody: the annotation file is read again",
        "tests/data/test_coco_cache.py::test_a_changed_file_and_a_damaged_entry_are_read_again",
    ),
    ("data/proposals/store.py", "*"): (
        "takes files of proposals",
        "tests/data/test_proposals.py::test_files_of_other_images_are_refused",
    ),
    ("model/backbones/weights.py", "model.backbone.weights=imagenet could not downlo"): (
        NETWORK,
        "tests/model/backbones/test_backbones.py::test_a_download_without_network_says_what_to_do",
    ),
    ("runs/resuming.py", "resume=true found no unfinished run of this conf"): (
        "takes Hydra's own start",
        "tests/training/test_reliability.py::test_the_newest_unfinished_run_of_the_same_config_is_found",
    ),
    ("commands/proposals.py", "{path} {what}, and this command would mix it wit"): (
        DISK,
        "tests/commands/test_proposals.py::test_a_killed_command_goes_on",
    ),
    ("commands/train.py", "The overrides do not compose the config that was"): (
        SECOND,
        "tests/runs/test_safety.py::test_a_config_that_was_not_checked_is_not_trained",
    ),
    ("commands/claim.py", "hydra.run.dir={wanted} and paths.run_dir={own} a"): ("takes Hydra's own start", FOLDERS),
    ("commands/claim.py", "{option}= names no folder; give one, {option}=FO"): ("takes Hydra's own start", FOLDERS),
    ("commands/evaluate.py", "The run's model selects its boxes without model."): (
        "takes a family of one's own",
        "tests/runs/test_checkpoints.py::test_a_family_without_detect_is_read_and_has_no_selection_to_change",
    ),
    ("config/trusted.py", "{file} begins with {line[:80]!r}, which is no pl"): ("told by another test", ODD),
    ("config/trusted.py", "{file} is no map of keys, as an option is."): ("told by another test", ODD),
    ("config/repeated.py", "{source} puts {value[:80]!r} at {'.'.join(map(st"): (SECOND, STRANGERS),
    ("config/repeated.py", "{source} holds an override of {len(word)} charac"): (SECOND, STRANGERS),
    ("config/repeated.py", "{source} holds overrides of {length} characters;"): ("told by another test", STRANGERS),
    ("config/repeated.py", "{source} sets {where}={shown}; where to write an"): (
        "takes the longest way around what is left out",
        STRANGERS,
    ),
    ("config/trusted.py", "str(error)"): (
        "files as deep are refused as they are read",
        "tests/runs/test_safety.py::test_configs_in_checkpoints",
    ),
    ("data/formats/bccd.py", "data=bccd could not download {self.url} ({error}"): (
        NETWORK,
        "tests/data/test_formats.py::test_bccd_without_network_says_what_to_do",
    ),
    ("data/formats/bccd.py", "data=bccd: {len(wrong)} files of {self.url} are "): (
        NETWORK,
        "tests/data/test_formats.py::test_bccd_downloads_and_checks_its_files",
    ),
    ("data/formats/source.py", "{item.path} could be read when training began an"): (
        DISK,
        "tests/training/test_reliability.py::test_a_vanished_data_folder_ends_the_run",
    ),
    ("data/images.py", "more pixels than data.max_pixels={max_pixels}"): (TOLD, BOMBS),
    ("data/images.py", "{image.size[0]}x{image.size[1]} is more than dat"): (TOLD, BOMBS),
    ("data/proposals/selective_search.py", "method=selective_search needs OpenCV contrib: pi"): (
        PACKAGE,
        "tests/commands/test_proposals.py::test_without_opencv_the_extra_is_named",
    ),
    ("data/splits.py", "The data's classes ({listed(classes.names, MANY)"): (
        "takes a checkpoint of other classes",
        "tests/training/test_splits.py::test_without_a_test_split_the_numbers_say_val",
    ),
    ("detectors/torchvision/convert.py", "state_dict does not fit {name} with num_classes="): (
        PYTHON,
        "tests/detectors/torchvision/test_convert.py::test_a_wrong_class_count_is_one_sentence",
    ),
    ("metrics/collected.py", "*"): (
        PYTHON,
        "tests/metrics/test_coco_ap.py::test_missing_and_unknown_images_are_refused",
    ),
    ("model/backbones/darknet_file.py", "{option}={path} begins with version {major}.{min"): (
        "takes a whole file of another format",
        DARKNET,
    ),
    ("model/backbones/darknet_file.py", "{self.option}={self.path} holds {len(self.floats"): (
        "takes a whole file of another network",
        DARKNET,
    ),
    ("model/criterion.py", "model.criterion.normalizer={normalizer} is not k"): (
        PYTHON,
        "tests/model/test_criterion.py::test_unknown_normaliser_is_refused",
    ),
    ("model/heads/dense.py", "model.head is shared by the levels and needs equ"): (
        PYTHON,
        "tests/model/heads/test_heads.py::test_unequal_anchors_are_refused",
    ),
    ("model/backbones/backbone.py", "{type(self).__name__} has no layers behind C4 to"): (
        PYTHON,
        "tests/model/heads/test_heads.py::test_a_backbone_without_a_tail_gets_new_layers",
    ),
    ("model/heads/roi.py", "model/head=tail takes over layers behind C4, but"): (
        "takes a backbone of one's own",
        "tests/model/heads/test_heads.py::test_a_backbone_without_a_tail_gets_new_layers",
    ),
    ("model/heads/roi.py", "model/head=tail needs one C4 map of {tail.channe"): (
        SECOND,
        "tests/model/heads/test_heads.py::test_a_tail_that_does_not_fit_is_refused",
    ),
    ("model/necks/ssd_extras.py", "model.neck.blocks needs five numbers for each: w"): (
        PYTHON,
        "tests/model/necks/test_ssd_extras.py::test_mistakes_name_their_option",
    ),
    ("report/intervals.py", "*"): (PYTHON, "tests/report/test_intervals.py::test_what_does_not_fit_is_an_error"),
    ("report/spending.py", "*"): (PYTHON, "tests/report/test_spending.py::test_looks_outside_the_plan"),
    ("runs/darknet.py", "{OPTION} fills YOLO alone, not {type(detector)._"): (
        PYTHON,
        "tests/runs/test_darknet.py::test_names_choose_the_network",
    ),
    ("runs/folder.py", "reason"): (DISK, "tests/runs/test_folder.py::test_a_folder_that_cannot_be_made_is_named"),
    ("runs/folder.py", "{folder} is held by another detlab command{who};"): (
        DISK,
        "tests/runs/test_folder.py::test_a_held_folder_is_refused_also_under_resume",
    ),
    ("runs/resuming.py", "resume=true found {held[-1]}, which is held by a"): (
        DISK,
        "tests/runs/test_folder.py::test_a_held_folder_is_refused_also_under_resume",
    ),
    ("runs/resuming.py", "{file} holds weights only, nothing to go on from"): (TOLD, ONE),
    ("runs/resuming.py", "{file} is damaged: {damaged}."): (TOLD, f"{RESUMED}is_left_out"),
    ("runs/resuming.py", "resume=true found {file} after {done} epochs, an"): (
        STORED,
        f"{OPTIONS_OF}cannot_go_on_with",
    ),
    ("training/fit.py", "resume=true cannot restore {start.checkpoint} in"): (STORED, f"{OPTIONS_OF}cannot_go_on_with"),
    ("training/restored.py", "resume=true goes on with the optimiser of before"): (
        STORED,
        f"{OPTIONS_OF}cannot_go_on_with",
    ),
    ("training/restored.py", "resume=true found a state of the optimiser that "): (
        STORED,
        "tests/training/test_reliability.py::test_a_checkpoint_of_before_seals_that_does_not_fit_is_one_sentence",
    ),
    ("runs/resuming.py", "{file} is of another model than this config's."): (TOLD, ONE),
    ("sweeps/record.py", "{folder} is being worked on by another command, "): (
        DISK,
        "tests/sweeps/test_life.py::test_another_launcher_and_another_command_keep_out_of_a_folder",
    ),
    ("training/callbacks/agreement.py", "Rank {rank} was started with another config than"): (
        RANKS,
        "tests/training/test_reliability.py::test_ranks_with_different_configs_refuse_to_run",
    ),
    ("training/callbacks/nonfinite.py", "The loss was not finite at step {step} (image id"): (
        "takes training",
        "tests/commands/test_running.py::test_a_not_finite_loss_stops_the_run_and_says_whose_it_was",
    ),
    ("training/stages/linear_svm.py", "training=svm needs scikit-learn; pip install 'de"): (
        PACKAGE,
        "tests/training/stages/test_linear_svm.py::test_mistakes_are_refused",
    ),
}
