import { SALMONN_RECIPE } from '../training/recipe.js'
import type { SalmonnConfiguration } from './configuration.js'
import { generationKeys, into, type Kind, type Rule, type Sections } from './rules.js'

const recipe: Record<string, Rule> = Object.fromEntries(
  // salmonnRecipe checks the values.
  Object.keys(SALMONN_RECIPE).map((name) => [name, into('recipe', name as keyof typeof SALMONN_RECIPE, 'any')]),
)
recipe.iterationsPerEpoch = {
  type: 'any',
  set: (to, value: unknown) => {
    // 'data' stands for null, since an empty value in YAML means unset.
    to.recipe.iterationsPerEpoch = value === 'data' ? null : (value as number)
  },
}

const set = (name: 'outputDir' | 'device' | 'compat' | 'evaluateOnly' | 'stage', type: Kind): Rule => ({
  type,
  set: (to: SalmonnConfiguration, value: unknown) => {
    ;(to as unknown as Record<string, unknown>)[name] = value
  },
})

/** Keys of voxtorch configurations. */
export const OWN_SECTIONS: Sections = {
  model: {
    llm: into('model', 'llm', 'string'),
    whisper: into('model', 'whisper', 'string'),
    // 'none' stands for null, since an empty value in YAML means unset.
    beats: {
      type: 'string',
      set: (to, value: string) => {
        to.model.beats = value === 'none' ? null : value
      },
    },
    adapter: into('model', 'adapter', 'string'),
    projection: into('model', 'projection', 'string'),
    lora: into('model', 'lora', 'boolean'),
    loraRank: into('model', 'loraRank', 'integer'),
    loraAlpha: into('model', 'loraAlpha', 'number'),
    loraDropout: into('model', 'loraDropout', 'number'),
    queries: into('model', 'queries', 'integer'),
    secondsPerWindow: into('model', 'secondsPerWindow', 'number'),
    secondsPerStride: into('model', 'secondsPerStride', 'number'),
    maxTextLength: into('model', 'maxTextLength', 'integer'),
    endSymbol: into('model', 'endSymbol', 'string'),
    loadIn8bit: into('model', 'loadIn8bit', 'boolean'),
  },
  data: {
    train: into('data', 'train', 'strings'),
    valid: into('data', 'valid', 'strings'),
    test: into('data', 'test', 'strings'),
    validShare: into('data', 'validShare', 'number'),
    testShare: into('data', 'testShare', 'number'),
    validSpeakers: into('data', 'validSpeakers', 'strings'),
    testSpeakers: into('data', 'testSpeakers', 'strings'),
    audioRoot: into('data', 'audioRoot', 'string'),
    prompts: into('data', 'prompts', 'string'),
    testPrompts: into('data', 'testPrompts', 'string'),
    template: into('data', 'template', 'string'),
    clips: into('data', 'clips', ['joined', 'separate']),
    gapSeconds: into('data', 'gapSeconds', 'number'),
    channels: into('data', 'channels', 'any'),
    longAudio: into('data', 'longAudio', ['error', 'cut', 'windows']),
    emotionSuffix: into('data', 'emotionSuffix', ['zh', 'en', false]),
    onBadItem: into('data', 'onBadItem', ['stop', 'skip']),
  },
  training: {
    ...recipe,
    stage: set('stage', [1, 2]),
    parts: set('stage', 'strings'),
    compat: set('compat', ['published']),
    outputDir: set('outputDir', 'string'),
    device: set('device', 'string'),
    evaluateOnly: set('evaluateOnly', 'boolean'),
    /** TrainingArguments; the Trainer checks them. */
    arguments: {
      type: 'any',
      set: (to, value: object) => {
        to.args = { ...value }
      },
    },
  },
  generation: generationKeys('camel'),
}
