import type { OptionTable } from '../../../kit/options.js'

/** Options that several verbs of USDM have, with the spellings of the original's programs. */
export const USDM_OPTIONS = {
  model: {
    kind: 'text',
    help: 'the language model, of which the tokenizer is read: a folder, or a repository of the hub',
    value: 'dir',
    preset: 'naver-ai/USTM',
    aliases: ['pretrained_model_name_or_path', 'tokenizer'],
  },
  modelCacheDir: {
    kind: 'text',
    help: 'where models are kept: XLS-R and its centroids are looked for there, and the tokenizer is written there',
    value: 'dir',
    aliases: ['model_cache_dir'],
  },
  encoder: {
    kind: 'text',
    help: 'XLS-R, WavLM or Whisper: a folder, a .pt of fairseq or fairseq2, or the name of published weights',
    value: 'path',
    preset: 'xlsr2_1b_v2.pt in the model cache',
  },
  kmeans: {
    kind: 'text',
    help: 'centroids [units, dim] in a .npy file',
    value: 'file',
    preset: 'kmeans_10k.npy in the model cache',
  },
  layer: { kind: 'whole', help: 'of the encoder, whose output becomes units', preset: 35 },
  units: { kind: 'whole', help: 'how many units there are', preset: 'as many as centroids' },
  batchSeconds: { kind: 'number', help: 'of audio in a batch of the encoder', preset: 16 },
  windowSeconds: {
    kind: 'number',
    help: 'longer clips are heard in windows, which changes some units; how many is said',
    value: 'seconds',
    preset: 'clips are heard as a whole',
  },
  overlapSeconds: { kind: 'number', help: 'how far a window reaches into the next', value: 'seconds', preset: 2 },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  progress: { kind: 'flag', help: 'a bar, or lines without a terminal' },
} as const satisfies OptionTable
