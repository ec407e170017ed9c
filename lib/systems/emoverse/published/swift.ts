import type { OriginalOptions } from '../../../kit/options.js'

/** Repositories of `--model_type`, for use without a path. */
export const SWIFT_MODELS: Readonly<Record<string, string>> = {
  'internvl2-1b': 'OpenGVLab/InternVL2-1B',
  'internvl2-2b': 'OpenGVLab/InternVL2-2B',
  'internvl2-4b': 'OpenGVLab/InternVL2-4B',
  'internvl2-8b': 'OpenGVLab/InternVL2-8B',
}

const none = (reason: string) => ({ takesValue: true, reason })

/** Further options of `swift sft` and `swift infer` of ms-swift 2.6 and 3.x, with the reason why each has no effect. */
export const SWIFT_ORIGINAL_OPTIONS: OriginalOptions = {
  model_revision: none("the repository's latest revision is used; name a folder for another one"),
  tuner_backend: none('voxtorch has only one'),
  infer_backend: none('voxtorch has only one'),
  train_backend: none('voxtorch has only one'),
  use_flash_attn: none('the attention kernel depends on the device'),
  attn_impl: none('the attention kernel depends on the device'),
  ddp_backend: none('voxtorch launch chooses it'),
  dataloader_num_workers: none('the next batch is encoded while a step computes'),
  dataset_num_proc: none('a file is scanned once, by one process'),
  preprocess_num_proc: none('a file is scanned once, by one process'),
  lazy_tokenize: none('records are always encoded on access'),
  check_model_is_latest: none('no server is contacted'),
  check_dataset_strategy: none('records are always checked, see --on-bad-record'),
  add_output_dir_suffix: none('the output folder has exactly the given name'),
  add_version: none('another training in the same folder goes to its subfolder v1, v2, …'),
  logging_dir: none('logs are written next to the checkpoints'),
  vit_use_gc: none('the vision encoder is never part of the graph'),
  freeze_vit: none('the vision encoder never trains'),
  eval_human: none('this command answers data; use voxtorch serve emoverse to chat'),
  show_dataset_sample: none('all of the data is answered'),
  load_args_from_ckpt_dir: none('options are read from the command line'),
  load_dataset_config: none('options are read from the command line'),
  load_args: none('options are read from the command line'),
  load_data_args: none('options are read from the command line'),
  stream: none('results are written to a file'),
  verbose: none('results are written to a file'),
  save_result: none('results are always written to a file'),
  acc_strategy: none('accuracies of sentences and of tokens are both logged'),
  ignore_args_error: none('an unknown option is always an error'),
  save_only_model: none('checkpoints always contain the full training state'),
  save_on_each_node: none('only the main process writes'),
  disable_tqdm: none('use --no-progress'),
}
