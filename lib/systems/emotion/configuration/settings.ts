// Settings with command-line options of modules that load libtorch, which `--help` must not do.
import { argumentError } from '../../../base/check.js'
import { checkedBy, settings, unchecked } from '../../../base/settings.js'
import type { EmotionClips } from '../../../kit/emotion/clips.js'

const FORMATS = ['ecf', 'meld', 'jsonl'] as const
export type EmotionFormat = (typeof FORMATS)[number]

/** Options of `openEmotionData`. */
export const OPEN_SETTINGS = settings({
  /** Format of the files. Default: by their names. */
  format: { type: FORMATS, help: 'format of the data; default: from the file names' },
  /** Files for validation and test, if they are not part of `path`. */
  valid: { type: 'string', help: 'validation data, which select the best epoch', placeholder: 'file' },
  test: { type: 'string', help: 'test data, used once after training', placeholder: 'file' },
  clips: { type: unchecked<EmotionClips>() },
  onBadRecord: {
    type: ['stop', 'skip'],
    ...{ defaultText: 'stop', help: 'on an unusable record or clip: stop with an error, or skip it' },
  },
  /** Class names, in the order of their indices. Default {@link EMOTIONS}; for JSONL the emotions that occur, sorted. */
  labels: { type: unchecked<readonly string[]>() },
  /**
   * Unit of the draws: conversations (default), or single utterances as in the original, which then tests on neighbors of
   * training utterances.
   */
  splitBy: {
    type: ['conversation', 'utterance'],
    ...{ default: 'conversation', help: 'unit of the draw for validation; the original draws utterances' },
  },
  /** Fraction of the dialogs to draw for validation if there are no validation data. Default 0.1. */
  validShare: {
    ...{ type: 'fraction', default: 0.1, help: 'fraction drawn for validation if there are no validation data' },
  },
  /** Fraction of the dialogs to draw for test if there are no test data. Default 0. */
  testShare: { type: 'fraction', default: 0, help: 'fraction drawn for test if there are no test data' },
  /** Fraction of the training conversations to train on, to measure the effect of data size. Default 1. */
  trainShare: {
    type: checkedBy<number>((where, name, value) => {
      if (typeof value === 'number' && value > 0 && value <= 1) return
      throw argumentError(where, name, 'a number above 0, at most 1', value)
    }),
    default: 1,
  },
  /** Seed of these draws. Default 42. */
  seed: { type: 'integer', default: 42 },
})

/** Options of `EmotionTextEncoder`. */
export const TEXT_SETTINGS = settings({
  /** Number of preceding utterances to encode with the utterance. Default 0. */
  history: {
    ...{ type: 'integer', default: 0, help: 'preceding utterances to encode with each text' },
    option: 'textHistory',
  },
  /** Whether to prepend the speaker's name to each text. Default false. */
  names: { type: 'boolean', default: false, help: 'prepend the speaker to each text', option: 'textNames' },
  /** Maximum number of tokens of a text with its history. Longer texts lose their end. Default 128. */
  maxLength: {
    type: 'integer',
    min: 3,
    default: 128,
    help: 'maximum number of tokens of a text',
    option: 'textLength',
  },
  /** Mean over the tokens of the utterance, or state of the first token. Default 'mean'. */
  pooling: { type: ['mean', 'cls'], default: 'mean' },
})
