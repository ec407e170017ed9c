import type { OptionTable } from '../../../kit/options.js'

/** Options that several USDM commands share, with the spellings of the original's programs as aliases. */
export const USDM_OPTIONS = {
  model: {
    kind: 'text',
    help: 'language model whose tokenizer is read: a folder, or a Hub repository',
    value: 'dir',
    preset: 'naver-ai/USTM',
    aliases: ['pretrained_model_name_or_path', 'tokenizer'],
  },
  modelCacheDir: {
    kind: 'text',
    help: 'folder of models: XLS-R and its centroids are read from it, and the tokenizer is written to it',
    value: 'dir',
    preset: 'MODEL_CACHE_DIR, if it is set',
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
  layer: { kind: 'whole', help: 'encoder layer whose output is quantized to units', preset: 35 },
  units: { kind: 'whole', help: 'number of units', preset: 'number of centroids' },
  batchSeconds: { kind: 'number', help: 'seconds of audio per encoder batch', preset: 16 },
  windowSeconds: {
    kind: 'number',
    help: 'splits longer clips into windows, which changes some units; prints how many',
    value: 'seconds',
    preset: 'clips are encoded in one piece',
  },
  overlapSeconds: { kind: 'number', help: 'overlap of neighboring windows', value: 'seconds', preset: 2 },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  progress: { kind: 'flag', help: 'shows progress: a bar, or lines without a terminal' },
} as const satisfies OptionTable

const { model, modelCacheDir, encoder, kmeans, layer, device } = USDM_OPTIONS

/** Options of the commands that generate replies: the parts of the USDM, and generation settings. */
export const USDM_ANSWER_OPTIONS = {
  model: { ...model, preset: 'naver-ai/USDM-DailyTalk', aliases: ['llm'] },
  adapter: { kind: 'text', help: 'folder of LoRA adapters, trained on --model', value: 'dir' },
  ...{ modelCacheDir, encoder, kmeans, layer },
  voicebox: {
    kind: 'text',
    help: 'Voicebox for the same units: a folder or a repository',
    value: 'dir',
    preset: 'naver-ai/xlsr-token-Voicebox',
  },
  vocoder: {
    kind: 'text',
    help: 'BigVGAN: a folder, a file or a repository; or griffin-lim, which needs no weights',
    value: 'dir',
    preset: 'nvidia/bigvgan_22khz_80band',
  },
  textOnly: { kind: 'flag', help: 'loads no Voicebox and no vocoder, and writes no audio' },
  strict: { kind: 'flag', help: 'suppresses padding, <|continue|> and line breaks in the reply' },
  temperature: { kind: 'number', help: 'sampling temperature; 0 for greedy decoding', preset: 0 },
  topP: { kind: 'number', help: 'top-p (nucleus) sampling', preset: 1 },
  topK: { kind: 'whole', help: 'top-k sampling; 0 for all tokens', preset: 0 },
  maxUnits: { kind: 'whole', help: 'maximum units of the reply, 50 per second', preset: 'rest of the context' },
  solverSteps: { kind: 'whole', help: 'evaluations of the Voicebox', preset: 50 },
  seed: { kind: 'whole', help: 'random seed of tokens and of the Voicebox noise', preset: 'a new one each time' },
  device,
  dtype: { kind: 'text', help: 'dtype of the language model', value: 'name', preset: 'bfloat16 for a repository' },
  offload: { kind: 'flag', help: 'keeps each part on the CPU while it is idle' },
} as const satisfies OptionTable
