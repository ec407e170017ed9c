import { argumentError, defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy } from '../../../base/settings.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { readConfig } from '../../../files/yaml/yaml.js'
import type { OptionsOf } from '../../../kit/options.js'
import type { LoraConfig } from '../../../peft/config.js'
import type { Device, DType } from '../../../tensor/index.js'
import { EmoVerse } from '../network/network.js'
import { SWIFT_MODELS } from '../published/swift.js'
import { EMOVERSE_RECIPE, EMOVERSE_SETTINGS, type EmoVerseRecipe } from '../training/recipe.js'
import type { EmoVerseStageOptions } from '../training/train.js'
import type { EMOVERSE_MODEL_OPTIONS, EMOVERSE_TRAINING_OPTIONS } from './arguments.js'
import { MODEL_SETTINGS, STAGE_SETTINGS, VISION_SETTINGS } from './settings.js'

export type EmoVerseModelArguments = OptionsOf<typeof EMOVERSE_MODEL_OPTIONS>
export type EmoVerseTrainingArguments = OptionsOf<typeof EMOVERSE_TRAINING_OPTIONS>

const DTYPES: Readonly<Record<string, DType>> = { fp32: 'float32', bf16: 'bfloat16', fp16: 'float16' }

/** Load the model that a command line names. @throws ConfigError if it names none */
export async function emoverseOfArguments(values: EmoVerseModelArguments): Promise<EmoVerse> {
  const { modelType, adapters = [], tokenizer, speech, quantize, device, dtype } = values
  const vision = VISION_SETTINGS.fromOptions(values)
  const known = modelType !== undefined && Object.hasOwn(SWIFT_MODELS, modelType) ? SWIFT_MODELS[modelType] : undefined
  const base = values.model ?? known
  if (base === undefined) {
    const unknown =
      modelType === undefined
        ? 'none'
        : `--model-type ${shortened(modelType)}${didYouMean(modelType, Object.keys(SWIFT_MODELS))}`
    throw new ConfigError(`--model: expected a model, got ${unknown}. Pass --model DIR.`, { argument: 'model' })
  }
  const plain = dtype === undefined || dtype === 'AUTO' ? undefined : (DTYPES[dtype] ?? (dtype as DType))
  return EmoVerse.fromPretrained(
    { base, adapters },
    defined({
      ...{ ...MODEL_SETTINGS.fromOptions(values), tokenizer, quantize, dtype: plain },
      speech: speech === undefined ? undefined : { whisper: speech },
      device: device as Device | undefined,
      vision: Object.keys(vision).length === 0 ? undefined : vision,
    }),
  )
}

/** Return the stages of a command line. @throws ConfigError if it has none, or mixes --stages with options of one stage */
export async function stagesOfArguments(values: EmoVerseTrainingArguments): Promise<EmoVerseStageOptions[]> {
  const { stages, dataset, valDataset } = values
  const { adamBeta1, adamBeta2, adamEpsilon, loraR, loraAlpha, loraDropout, targetModules } = values
  const [beta1, beta2] = EMOVERSE_RECIPE.betas
  const betas: [number, number] | undefined =
    (adamBeta1 ?? adamBeta2) === undefined ? undefined : [adamBeta1 ?? beta1, adamBeta2 ?? beta2]
  const recipe = defined({ ...EMOVERSE_SETTINGS.changesIn(values), betas, eps: adamEpsilon }) as Partial<EmoVerseRecipe>
  const names = targetModules?.flatMap((name) => name.split(','))
  const isAll =
    names === undefined || names.some((name) => name === 'DEFAULT' || name === 'ALL' || name === 'all-linear')
  const lora = defined({
    r: loraR,
    loraAlpha,
    loraDropout,
    targetModules: isAll ? undefined : names,
  }) as Partial<LoraConfig>
  if (stages === undefined) {
    if (dataset === undefined)
      throw new ConfigError('--dataset: expected training data, got none. Pass --dataset FILE, or --stages FILE.', {
        argument: 'dataset',
      })
    return [
      {
        data: dataset,
        ...{ ...STAGE_SETTINGS.pick('projector', 'speech').fromOptions(values), recipe },
        ...(values.trainSpeech !== 'alone' && { lora }),
        ...defined({ valid: valDataset }),
      },
    ]
  }
  const extra = [
    ...Object.keys(recipe),
    ...Object.keys(lora),
    ...(dataset ? ['dataset'] : []),
    ...(valDataset ? ['valDataset'] : []),
    ...(values.projector ? ['projector'] : []),
    ...(values.trainSpeech ? ['trainSpeech'] : []),
  ]
  if (extra.length > 0) {
    const what = `got ${extra.join(', ')} as well. Move these into the stage files`
    throw new ConfigError(`--stages: expected all settings in the stage files, ${what}.`, { argument: extra[0] })
  }
  return Promise.all(stages.map(readEmoVerseStage))
}

const FILES = checkedBy<string | string[]>((where, name, value) => {
  if (typeof value === 'string' || (Array.isArray(value) && value.every((one) => typeof one === 'string'))) return
  throw argumentError(where, name, 'a file or a list of files', value)
})
const STAGE_FILE = STAGE_SETTINGS.extend({ data: { type: FILES, required: true }, valid: { type: FILES } })

/**
 * Read a stage from a YAML or JSON file. `data` is a file or a list of files; `name`, `valid`, `recipe`, `lora`, `projector` and `speech`
 * have the keys of {@link EmoVerseStageOptions}.
 * @throws ConfigError for an unknown key, naming the nearest
 */
export const readEmoVerseStage = async (file: string): Promise<EmoVerseStageOptions> =>
  STAGE_FILE.read(file, (await readConfig(file)) as ChangesOf<typeof STAGE_FILE.table>)
