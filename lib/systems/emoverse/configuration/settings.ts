// Settings with command-line options of modules that load libtorch, which `--help` must not do.
import { requireObject } from '../../../base/check.js'
import { checkedBy, settings } from '../../../base/settings.js'
import { INTERNVL_TEMPLATES, type InternVLTemplate } from '../../../models/internvl/prompt.js'
import type { LoraConfig } from '../../../peft/config.js'
import { type EmoVerseRecipe, emoverseRecipe } from '../training/recipe.js'

const READ = { type: ['read', 'ignore'], default: 'read' } as const
const TEMPLATES = Object.keys(INTERNVL_TEMPLATES) as [InternVLTemplate, ...InternVLTemplate[]]

/** Settings of a model. */
export const MODEL_SETTINGS = settings({
  /** Chat template. Default: that of an InternVL's configuration, otherwise by the tokenizer's special tokens. */
  template: { type: TEMPLATES, defaultText: "by the tokenizer's special tokens", help: 'chat template' },
  /** System prompt of records without one. Default {@link EMOVERSE_SYSTEM}; null for none. */
  system: { type: 'string', nullable: true, defaultText: "EmoVerse's", help: 'system prompt' },
  /** 'ignore': leave out media and their markers, and use only the text. Default 'read'. */
  media: {
    ...READ,
    help: "whether images and videos are read; 'ignore' uses only the text, as a text-only model requires",
  },
  /** 'ignore': leave out audio and its markers, as if the model had no audio encoder. Default 'read'. */
  audio: { ...READ, help: "whether audio is read; 'ignore' leaves it out" },
})

/** Tiling of images and videos. Defaults are the published values. */
export const VISION_SETTINGS = settings({
  /** Maximum tiles per image, without the thumbnail. Default: the network's `maxDynamicPatch`, or 12. */
  maxTiles: {
    ...{ type: 'integer', min: 1, help: 'maximum number of tiles per image, without the thumbnail' },
    ...{ defaultText: "12, or the model's configuration", aliases: ['max_num'] },
  },
  /** Frames per video. Default 8. */
  frames: { type: 'integer', min: 1, default: 8, help: 'frames per video', aliases: ['video_segments'] },
})

/** Training of the projector between vision encoder and language model: with LoRA like the language model, whole, or frozen. */
export const PROJECTOR_TRAINING = ['lora', 'whole', 'frozen'] as const

/** Training of the audio encoder in a stage: frozen, together with the adapter, or alone. */
export const SPEECH_TRAINING = ['frozen', 'whole', 'alone'] as const

/** One stage of a training, without its data. */
export const STAGE_SETTINGS = settings({
  /** Folder name of its results. Default `stage-1`, `stage-2`, … */
  name: { type: 'string' },
  /** Changes to {@link EMOVERSE_RECIPE}. */
  recipe: { type: checkedBy<Partial<EmoVerseRecipe>>((_, __, value) => emoverseRecipe(value as object)) },
  /** Changes to the adapter: rank 8, alpha 32, dropout 0.05, all linear layers of language model and projector without the head. */
  lora: { type: checkedBy<Partial<LoraConfig>>(requireObject) },
  /**
   * Training of InternVL's projector: with LoRA like the language model (default, as in the scripts), whole (as in the paper's figure), or
   * frozen. The vision encoder never trains.
   */
  projector: { type: PROJECTOR_TRAINING, defaultText: 'lora', help: "training of InternVL's projector" },
  /** Training of the speech branch, without its encoder: 'whole' with the adapter, 'alone' without one. Default 'frozen'. */
  speech: {
    type: SPEECH_TRAINING,
    defaultText: 'frozen',
    option: 'trainSpeech',
    help: 'training of the audio encoder: frozen, whole (with the adapter), or alone (without an adapter)',
  },
})

/** Policy for a record that cannot be used. */
export const ON_BAD_RECORD = {
  type: ['stop', 'skip'],
  ...{ default: 'skip', help: 'stop at, or skip, a record that cannot be used' },
} as const

/** Options of `trainEmoVerse`. */
export const TRAINING_SETTINGS = settings({
  /** Number of the stage to start with, from 1. The model must be the result of the stages before. Default 1. */
  startAt: {
    ...{ type: 'integer', min: 1, default: 1 },
    help: 'number of the stage to start with; --model is the result of the stages before',
  },
  /** Base folder of relative media paths. Default: the working directory. */
  mediaRoot: { type: 'string' },
  /** Folder that caches the vision encoder's outputs across epochs, stages and runs. It is filled before a stage begins. */
  visionCache: { type: 'string' },
  /**
   * Policy for a record that cannot be used or whose media cannot be read: 'skip' (default) leaves it out and counts it by cause, 'stop'
   * throws before the stage begins.
   */
  onBadRecord: ON_BAD_RECORD,
  /**
   * 'published': train as ms-swift 2.6 does: an unusable record is replaced by a random one, and the batches of a step have equal weight.
   * By default unusable records are left out and counted, all label tokens of a step have equal weight, and all media are read before a
   * stage begins.
   */
  compat: { type: ['published'], help: 'reproduce ms-swift 2.6 where voxtorch improves on it' },
})

/** Options of `emoverseData`. */
export const DATA_SETTINGS = settings({
  /** Split of the data to read, which is also part of media paths. Default 'train'. */
  part: { type: ['train', 'valid', 'test'], default: 'train', help: 'split of the data' },
  /** Whether to use every task of every clip, in the order of the data, without sampling; for test data. Default false. */
  all: { type: 'boolean', default: false, help: 'every task of every clip, in order: for test data' },
  /** Number of preceding utterances in MELD's questions; the published questions have none. Default 0. */
  context: {
    ...{ type: 'integer', default: 0 },
    help: "preceding utterances shown with MELD's; the published questions show none",
  },
  /** Utterances that are shown as candidate causes: those before the target, as published, or all. Default 'before'. */
  candidates: { type: ['before', 'all'], default: 'before', help: 'utterances that are shown as candidates' },
  /** Format of MOSEI's sentiment: a word, as published, or a number from -3 to 3. Default 'words'. */
  sentiment: {
    type: ['words', 'number'],
    ...{ default: 'words', help: "answer to MOSEI's sentiment questions: a label or a number" },
  },
  /** Random seed. Default 42. */
  seed: { type: 'integer', default: 42, help: 'random seed of tasks and order' },
})

/** Options of `findCauses`. */
export const CAUSE_SETTINGS = settings({
  /** 'predicted' (default): the model predicts each utterance's emotion. 'given': the labels of the data, as in the published questions. */
  emotions: {
    type: ['predicted', 'given'],
    ...{ default: 'predicted', help: 'source of the emotions: the model or the data' },
  },
  /** Candidate causes: all utterances of the dialog (default), or those before the target, as in the published questions. */
  candidates: { type: ['all', 'before'], default: 'all', help: 'utterances that can be causes' },
  /** Constrain answers to pairs of the target and an utterance of the dialog, so that every answer parses. Default false. */
  constrained: { type: 'boolean', help: 'constrain answers to pairs of the target and an existing utterance' },
  /**
   * Lowest probability of a cause (`EmoVerse.scoreCauses`). With it no answer is generated: each target gets its most likely cause and
   * every other cause of at least this probability. Default: answers are generated.
   */
  causeThreshold: {
    type: 'number',
    help: 'minimum probability of a cause; the most likely one always counts; generates no answer',
  },
  /** Maximum number of tokens of an answer. Default 64. */
  maxNewTokens: { type: 'integer', min: 1, defaultText: '64', help: 'maximum number of tokens of an answer' },
  /** Questions per batch. Default 8. */
  batchSize: { type: 'integer', min: 1, defaultText: '8', help: 'questions per batch' },
})
