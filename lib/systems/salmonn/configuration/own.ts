import { SALMONN_RECIPE } from '../training/recipe.js'
import type { SalmonnConfiguration } from './configuration.js'
import { generationKeys, into, type Rule, type Sections } from './rules.js'

const recipe: Record<string, Rule> = Object.fromEntries(
  // salmonnRecipe checks the values.
  Object.keys(SALMONN_RECIPE).map((name) => [name, into('recipe', name as keyof typeof SALMONN_RECIPE, 'any')]),
)
recipe.iterationsPerEpoch = {
  kind: 'any',
  set: (to, value: unknown) => {
    // 'data' stands for null, since an empty value in YAML means unset.
    to.recipe.iterationsPerEpoch = value === 'data' ? null : (value as number)
  },
}

const set = (name: 'outputDir' | 'device' | 'compat' | 'evaluateOnly' | 'stage', kind: Rule & object): Rule => ({
  ...(kind as { kind: 'text' }),
  set: (to: SalmonnConfiguration, value: unknown) => {
    ;(to as unknown as Record<string, unknown>)[name] = value
  },
})
const kind = (value: unknown) => ({ kind: value }) as Rule & object

/** Keys of voxtorch configurations. */
export const OWN_SECTIONS: Sections = {
  model: {
    llm: into('model', 'llm', 'text'),
    whisper: into('model', 'whisper', 'text'),
    // 'none' stands for null, since an empty value in YAML means unset.
    beats: {
      kind: 'text',
      set: (to, value: string) => {
        to.model.beats = value === 'none' ? null : value
      },
    },
    adapter: into('model', 'adapter', 'text'),
    projection: into('model', 'projection', 'text'),
    lora: into('model', 'lora', 'flag'),
    loraRank: into('model', 'loraRank', 'whole'),
    loraAlpha: into('model', 'loraAlpha', 'number'),
    loraDropout: into('model', 'loraDropout', 'number'),
    queries: into('model', 'queries', 'whole'),
    secondsPerWindow: into('model', 'secondsPerWindow', 'number'),
    secondsPerStride: into('model', 'secondsPerStride', 'number'),
    maxTextLength: into('model', 'maxTextLength', 'whole'),
    endSymbol: into('model', 'endSymbol', 'text'),
    loadIn8bit: into('model', 'loadIn8bit', 'flag'),
  },
  data: {
    train: into('data', 'train', 'texts'),
    valid: into('data', 'valid', 'texts'),
    test: into('data', 'test', 'texts'),
    validShare: into('data', 'validShare', 'number'),
    testShare: into('data', 'testShare', 'number'),
    validSpeakers: into('data', 'validSpeakers', 'texts'),
    testSpeakers: into('data', 'testSpeakers', 'texts'),
    audioRoot: into('data', 'audioRoot', 'text'),
    prompts: into('data', 'prompts', 'text'),
    testPrompts: into('data', 'testPrompts', 'text'),
    template: into('data', 'template', 'text'),
    clips: into('data', 'clips', ['joined', 'separate']),
    gapSeconds: into('data', 'gapSeconds', 'number'),
    channels: into('data', 'channels', 'any'),
    longAudio: into('data', 'longAudio', ['error', 'cut', 'windows']),
    emotionSuffix: into('data', 'emotionSuffix', ['zh', 'en', false]),
    onBadItem: into('data', 'onBadItem', ['stop', 'skip']),
  },
  training: {
    ...recipe,
    stage: set('stage', kind([1, 2])),
    parts: set('stage', kind('texts')),
    compat: set('compat', kind(['published'])),
    outputDir: set('outputDir', kind('text')),
    device: set('device', kind('text')),
    evaluateOnly: set('evaluateOnly', kind('flag')),
    /** TrainingArguments; the Trainer checks them. */
    arguments: {
      kind: 'any',
      set: (to, value: object) => {
        to.args = { ...value }
      },
    },
  },
  generation: generationKeys('camel'),
}
