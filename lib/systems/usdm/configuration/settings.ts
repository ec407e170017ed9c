// Settings with command-line options of modules that load libtorch, which `--help` must not do.
import { settings, unchecked } from '../../../base/settings.js'

const ON_BAD_RECORD = { type: ['stop', 'skip'], default: 'stop' } as const
const SEED = { type: 'integer', help: 'random seed of the shuffle' } as const

/** Maximum number of tokens of a prompt or example, if the tokenizer's files do not set one. */
export const USDM_MAX_LENGTH = 8192

const DAILYTALK = 'dataset/fine-tuning/dailytalk'

/** Options of `prepareVoicebox`. */
export const VOICEBOX_DATA_SETTINGS = settings({
  /** Folder of audio files (WAV, FLAC, MP3, …), searched recursively. No transcripts are needed. */
  data: {
    ...{ type: 'string', help: 'folder of audio files', placeholder: 'dir', aliases: ['data_path'] },
    required: true,
  },
  /** Names of the corpus and the split: the list is `<output>/<name>/<split>.txt`. */
  name: { type: 'string', required: true, option: 'dataName', help: 'name of the corpus', placeholder: 'name' },
  split: {
    ...{ type: 'string', help: 'name of the split: train, valid or test', placeholder: 'split' },
    required: true,
    option: 'dataSplit',
  },
  /** Default 'filelists'. */
  output: { type: 'string', default: 'filelists', help: 'folder of file lists', placeholder: 'dir' },
  /** Folder of cached units; existing units are not extracted again. Default `<output>/<name>/<split>-units`. */
  unitFolder: {
    ...{ type: 'string', defaultText: 'next to the file list', help: 'folder of cached units', placeholder: 'dir' },
  },
  /** Action for a clip that cannot be used: 'stop' (default) throws; 'skip' leaves it out and counts it. */
  onBadRecord: { ...ON_BAD_RECORD, help: 'action for a clip that cannot be used' },
  /** Random seed of the shuffle. Default 37. */
  seed: { ...SEED, default: 37 },
})

/** Options of `usdmExamples`. */
export const EXAMPLE_SETTINGS = settings({
  /** Folder where an extractor's units are cached; existing units are not extracted again. */
  unitFolder: {
    ...{ type: 'string', defaultText: 'units next to the output', help: 'folder of cached units', placeholder: 'dir' },
  },
  /** 'single' (default): one example per pair of neighboring turns; 'multi': one per dialog. */
  template: { type: ['single', 'multi'], default: 'single', help: 'one example per pair of turns, or per dialog' },
  /** Maximum number of tokens; longer examples are dropped. Default 8192. */
  maxLength: {
    ...{ type: 'integer', min: 1, default: USDM_MAX_LENGTH },
    help: 'maximum tokens of an example; longer ones are dropped',
  },
  /** Random seed of the shuffle. Default 42. */
  seed: { ...SEED, default: 42 },
})

/** Options of `preprocessDailyTalk` and `preprocessUsdmJsonl`. */
export const PREPROCESS_SETTINGS = EXAMPLE_SETTINGS.extend({
  /** Folder to save the tokenizer with the speech tokens to, where training looks for it. Default: it is not saved. */
  modelCacheDir: { type: 'string' },
  /** Action for a line or dialog that cannot be used: 'stop' (default) throws; 'skip' drops the dialog and counts it. */
  onBadRecord: { ...ON_BAD_RECORD, help: 'action for a dialog that cannot be used' },
})

/** Options of `preprocessDailyTalk`. */
export const DAILYTALK_SETTINGS = settings({
  /** DailyTalk's `train_phone.txt`. Default `dataset/fine-tuning/dailytalk/raw/train.txt`. */
  trainMetadata: {
    ...{ type: 'string', default: `${DAILYTALK}/raw/train.txt`, help: "DailyTalk's train_phone.txt" },
    ...{ placeholder: 'file', aliases: ['train_metadata_path'] },
  },
  /** DailyTalk's `val_phone.txt`. Default `dataset/fine-tuning/dailytalk/raw/test.txt`. */
  testMetadata: {
    ...{ type: 'string', default: `${DAILYTALK}/raw/test.txt`, help: "DailyTalk's val_phone.txt" },
    ...{ placeholder: 'file', aliases: ['test_metadata_path'] },
  },
  /** Folder for `train.txt` and `test.txt`. Default `dataset/fine-tuning/dailytalk/preprocessed`. */
  output: {
    ...{ type: 'string', default: `${DAILYTALK}/preprocessed`, placeholder: 'path', aliases: ['output_path'] },
    help: 'folder to write; for a JSONL file, the file to write',
  },
})

/** Options of `ustmSegments`. */
export const SEGMENT_SETTINGS = settings({
  /** Approximate number of units per segment. Default 500, which is 10 seconds. */
  segmentUnits: { type: 'integer', min: 1, default: 500, help: 'approximate units per segment' },
  /**
   * 'published': as in the original, a new position is drawn for each word that could be the boundary. By default, one position is
   * drawn per boundary, and the segment starts at the nearest word.
   */
  compat: { type: ['published'], help: 'draw a new position for each word that a segment might start with' },
})

/** Options of `ustmSequences`. */
export const SEQUENCE_SETTINGS = settings({
  /** Number of times that each utterance is segmented and interleaved anew. Default 1. */
  epochs: {
    ...{ type: 'integer', min: 1, default: 1, aliases: ['epoch'] },
    help: 'how often each utterance is segmented and interleaved anew',
  },
  /** Random seed; each utterance has its own random stream. Default 43. */
  seed: { type: 'integer', default: 43, help: 'random seed' },
  /** Action for an utterance that cannot be used. Default 'stop'. */
  onBadRecord: { ...ON_BAD_RECORD, help: 'action for an utterance that cannot be used' },
  ...SEGMENT_SETTINGS.table,
})

/** Options of `prepareUstm`. */
export const PREPARE_SETTINGS = settings({
  /** Folder with `<name>_unit.txt` for each. Default: that of the TextGrids without `-textgrid` at its end. */
  units: {
    ...{ type: 'string', defaultText: '--data without -textgrid', help: 'folder of units', placeholder: 'dir' },
    option: 'unitFolder',
  },
  /** The folder to write. */
  output: { type: 'string', required: true, help: 'folder to write', placeholder: 'dir', aliases: ['output_path'] },
  /** Maximum tokens of a row; longer sequences are dropped. Default 8192. */
  maxLength: {
    ...{ type: 'integer', min: 1, default: USDM_MAX_LENGTH, help: 'tokens per row; longer sequences are dropped' },
  },
  ...SEQUENCE_SETTINGS.table,
})

/** Options of `alignUstm`. */
export const ALIGN_SETTINGS = settings({
  /** Folder of audio files, searched recursively. */
  data: {
    ...{ type: 'string', help: 'folder of audio files', placeholder: 'dir', aliases: ['data_path'] },
    required: true,
  },
  /** Folder for `<name>.TextGrid` of each file; existing files are kept. Default: `data` with `-textgrid` appended. */
  output: {
    ...{ type: 'string', defaultText: '--data with -textgrid appended', help: 'folder to write', placeholder: 'dir' },
  },
  /**
   * Folder of transcripts, `<name>.txt` each, which are aligned to the clip. A clip without one is transcribed by Whisper. Default:
   * `data`.
   */
  transcripts: {
    ...{ type: 'string', defaultText: 'that of --data', help: 'folder of transcripts', placeholder: 'dir' },
  },
  /** A code or an English name. Default 'en' for a multilingual model. */
  language: { type: 'string', defaultText: 'en', help: 'language of the clips', placeholder: 'code' },
  /** Action for a clip that cannot be aligned: 'stop' (default) throws; 'skip' leaves it out and counts it. */
  onBadRecord: { ...ON_BAD_RECORD, help: 'action for a clip that cannot be aligned' },
})

/** Sampling of a reply. */
export const SAMPLING_SETTINGS = settings({
  /** 0 for greedy decoding. Default 0. */
  temperature: { type: 'number', defaultText: '0', help: 'sampling temperature; 0 for greedy decoding' },
  /** Default 1. */
  topP: { type: 'number', below: 1.000001, defaultText: '1', help: 'top-p (nucleus) sampling' },
  /** Default 0: all tokens. */
  topK: { type: 'integer', defaultText: '0', help: 'top-k sampling; 0 for all tokens' },
})

/** Options of `Usdm.respond`. */
export const ANSWER_SETTINGS = settings({
  /** Evaluations of the Voicebox for each piece. Default 50, as published; 15 is the original demo's. */
  steps: { type: 'integer', min: 1, defaultText: '50', option: 'solverSteps', help: 'evaluations of the Voicebox' },
  /** Default 'heun'. */
  solver: { type: ['euler', 'heun'] },
  /** Scale of classifier-free guidance. Default 1. */
  guidance: { type: 'number' },
  /** Transcript of the question, if it is known. Default: generated by the first pass. */
  transcript: { type: 'string' },
  /** Text of the reply, to have it spoken. Default: generated by the second pass. */
  reply: { type: 'string' },
  /** Maximum units of the reply, 50 per second. Default: the rest of the context. */
  maxUnits: {
    ...{ type: 'integer', min: 1, defaultText: 'rest of the context' },
    help: 'maximum units of the reply, 50 per second',
  },
  /** Maximum tokens of the transcript and of the reply, each. Default: the rest of the context. */
  maxTextTokens: { type: 'integer', min: 1 },
  /** Suppress tokens that the published model may generate but should not: padding, `<|continue|>`, line breaks in the reply. Default false. */
  strict: { type: 'boolean', help: 'suppress padding, <|continue|> and line breaks in the reply' },
  /** Whether to generate audio. Default: true with a Voicebox and a vocoder. */
  audio: { type: 'boolean' },
  /** Random seed of the tokens and of the Voicebox noise. Default: a new one each time. */
  seed: { type: unchecked<number | bigint>() },
})
