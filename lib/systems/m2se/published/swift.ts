import type { ForeignOptions } from '../../../kit/options.js'

/** What `--model_type` stands for where no path is given. */
export const SWIFT_MODELS: Readonly<Record<string, string>> = {
  'internvl2-1b': 'OpenGVLab/InternVL2-1B',
  'internvl2-2b': 'OpenGVLab/InternVL2-2B',
  'internvl2-4b': 'OpenGVLab/InternVL2-4B',
  'internvl2-8b': 'OpenGVLab/InternVL2-8B',
}

const none = (reason: string) => ({ takesValue: true, reason })

/** What `swift sft` and `swift infer` of ms-swift 2.6 and 3.x take besides, and why it has no effect here. */
export const SWIFT_FOREIGN: ForeignOptions = {
  model_revision: none('a repository is read as it is; name a folder for another state'),
  tuner_backend: none('there is one'),
  infer_backend: none('there is one'),
  train_backend: none('there is one'),
  use_flash_attn: none('attention is chosen by what the device has'),
  attn_impl: none('attention is chosen by what the device has'),
  ddp_backend: none('voxtorch launch chooses it'),
  dataloader_num_workers: none('records are made tokens while the step before computes'),
  dataset_num_proc: none('a file is gone through once'),
  preprocess_num_proc: none('a file is gone through once'),
  lazy_tokenize: none('records are always made tokens when it is their turn'),
  check_model_is_latest: none('nobody is asked'),
  check_dataset_strategy: none('records are always checked, see --on-bad-record'),
  add_output_dir_suffix: none('the folder is the one that is named'),
  add_version: none('another training in the same folder goes into v1, v2, … of it'),
  logging_dir: none('logs stand beside the checkpoints'),
  vit_use_gc: none('pictures are never part of the graph'),
  freeze_vit: none('the network for pictures never trains'),
  eval_human: none('answers are for data; voxtorch serve emoverse talks'),
  show_dataset_sample: none('all of the data is answered'),
  load_args_from_ckpt_dir: none('options are read from the command line'),
  load_dataset_config: none('options are read from the command line'),
  load_args: none('options are read from the command line'),
  load_data_args: none('options are read from the command line'),
  stream: none('results stand in a file'),
  verbose: none('results stand in a file'),
  save_result: none('results always stand in a file'),
  acc_strategy: none('both are logged: of sentences and of tokens'),
  ignore_args_error: none('an unknown option is always an error'),
  save_only_model: none('checkpoints always hold what it takes to go on'),
  save_on_each_node: none('one process writes'),
  disable_tqdm: none('say --no-progress'),
}
