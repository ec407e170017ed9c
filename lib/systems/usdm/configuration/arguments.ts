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
    preset: 'MODEL_CACHE_DIR, where that is set',
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

const { model, modelCacheDir, encoder, kmeans, layer, device } = USDM_OPTIONS

/** Which USDM answers, and how. */
export const USDM_ANSWER_OPTIONS = {
  model: { ...model, preset: 'naver-ai/USDM-DailyTalk', aliases: ['llm'] },
  adapter: { kind: 'text', help: 'what fine-tuning with --lora left, for --model as it was before', value: 'dir' },
  ...{ modelCacheDir, encoder, kmeans, layer },
  voicebox: {
    kind: 'text',
    help: 'of the same units: a folder or a repository',
    value: 'dir',
    preset: 'naver-ai/xlsr-token-Voicebox',
  },
  vocoder: {
    kind: 'text',
    help: 'BigVGAN: a folder, a file or a repository; or griffin-lim, which needs no weights',
    value: 'dir',
    preset: 'nvidia/bigvgan_22khz_80band',
  },
  textOnly: { kind: 'flag', help: 'loads no Voicebox and vocoder, and writes no sound' },
  strict: { kind: 'flag', help: 'no padding, no <|continue|>, no line breaks in the reply' },
  temperature: { kind: 'number', help: '0 takes the likeliest token', preset: 0 },
  topP: { kind: 'number', help: 'the fewest tokens that hold so much probability', preset: 1 },
  topK: { kind: 'whole', help: 'only so many of the likeliest tokens; 0 for all', preset: 0 },
  maxUnits: { kind: 'whole', help: 'of the reply, 50 a second', preset: 'what there is room for' },
  solverSteps: { kind: 'whole', help: 'evaluations of the Voicebox', preset: 50 },
  seed: { kind: 'whole', help: 'of tokens and of the noise that speech is made of', preset: 'another each time' },
  device,
  dtype: { kind: 'text', help: 'of the language model', value: 'name', preset: 'bfloat16 of a repository' },
  offload: { kind: 'flag', help: 'each part is on the device only while it works' },
} as const satisfies OptionTable
