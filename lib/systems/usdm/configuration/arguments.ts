import type { OptionTable } from '../../../kit/options.js'
import { ANSWER_SETTINGS, SAMPLING_SETTINGS } from './settings.js'

/** Options that several USDM commands share, with the spellings of the original's programs as aliases. */
export const USDM_OPTIONS = {
  model: {
    type: 'string',
    help: 'language model whose tokenizer is read: a folder, or a Hub repository',
    placeholder: 'dir',
    default: 'naver-ai/USTM',
    aliases: ['pretrained_model_name_or_path', 'tokenizer'],
  },
  modelCacheDir: {
    type: 'string',
    help: 'folder of models: XLS-R and its centroids are read from it, and the tokenizer is written to it',
    placeholder: 'dir',
    default: 'MODEL_CACHE_DIR, if it is set',
    aliases: ['model_cache_dir'],
  },
  encoder: {
    type: 'string',
    help: 'XLS-R, WavLM or Whisper: a folder, a .pt of fairseq or fairseq2, or the name of published weights',
    placeholder: 'path',
    default: 'xlsr2_1b_v2.pt in the model cache',
  },
  kmeans: {
    type: 'string',
    help: 'centroids [units, dim] in a .npy file',
    placeholder: 'file',
    default: 'kmeans_10k.npy in the model cache',
  },
  layer: { type: 'integer', help: 'encoder layer whose output is quantized to units', default: 35 },
  units: { type: 'integer', help: 'number of units', default: 'number of centroids' },
  batchSeconds: { type: 'number', help: 'seconds of audio per encoder batch', default: 16 },
  windowSeconds: {
    type: 'number',
    help: 'split longer clips into windows, which changes some units; prints how many',
    placeholder: 'seconds',
    default: 'clips are encoded in one piece',
  },
  overlapSeconds: { type: 'number', help: 'overlap of neighboring windows', placeholder: 'seconds', default: 2 },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  progress: { type: 'boolean', help: 'show progress: a bar, or lines without a terminal' },
} as const satisfies OptionTable

const { model, modelCacheDir, encoder, kmeans, layer, device } = USDM_OPTIONS

/** Options of the commands that generate replies: the parts of the USDM, and generation settings. */
export const USDM_ANSWER_OPTIONS = {
  model: { ...model, default: 'naver-ai/USDM-DailyTalk', aliases: ['llm'] },
  adapter: { type: 'string', help: 'folder of LoRA adapters, trained on --model', placeholder: 'dir' },
  ...{ modelCacheDir, encoder, kmeans, layer },
  voicebox: {
    type: 'string',
    help: 'Voicebox for the same units: a folder or a repository',
    placeholder: 'dir',
    default: 'naver-ai/xlsr-token-Voicebox',
  },
  vocoder: {
    type: 'string',
    help: 'BigVGAN: a folder, a file or a repository; or griffin-lim, which needs no weights',
    placeholder: 'dir',
    default: 'nvidia/bigvgan_22khz_80band',
  },
  textOnly: { type: 'boolean', help: 'write no audio: load neither Voicebox nor vocoder' },
  ...SAMPLING_SETTINGS.options,
  ...ANSWER_SETTINGS.options,
  seed: { type: 'integer', help: 'random seed of tokens and of the Voicebox noise', default: 'a new one each time' },
  device,
  dtype: {
    type: 'string',
    help: 'dtype of the language model',
    placeholder: 'name',
    default: 'bfloat16 for a repository',
  },
  offload: { type: 'boolean', help: 'keep each part on the CPU while it is idle' },
} as const satisfies OptionTable
