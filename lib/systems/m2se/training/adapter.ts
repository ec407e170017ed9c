import { ConfigError } from '../../../base/errors.js'
import { InternVL } from '../../../models/internvl/internvl.js'
import type { LoraConfig } from '../../../peft/config.js'
import { getPeftModel, type PeftModel, peftModelOf } from '../../../peft/model.js'
import { addAdapter, isPacked } from '../network/files.js'
import type { EmoVerse } from '../network/network.js'

/** How the projection between pictures and words trains: with an adapter as the language model, as a whole, or not at all. */
export const PROJECTOR_TRAINING = ['lora', 'whole', 'frozen'] as const
export type ProjectorTraining = (typeof PROJECTOR_TRAINING)[number]

/** What a stage does with the ears: nothing, trains them beside the adapter, or trains them and nothing else. */
export const SPEECH_TRAINING = ['frozen', 'whole', 'alone'] as const
export type SpeechTraining = (typeof SPEECH_TRAINING)[number]

/** ms-swift's expression for this family: linear layers of both parts but the head, and nothing of the vision part. */
const expressionOf = (parts: string) => `^(${parts})(?!.*(lm_head|output|emb|wte|shared)).*`

/** The adapter of a stage: what the scripts say, and changes to it. */
export function stageAdapter(
  { model }: EmoVerse,
  lora: Partial<LoraConfig>,
  projector: ProjectorTraining | undefined,
): LoraConfig {
  const sees = model instanceof InternVL
  if (projector !== undefined && !sees) {
    throw new ConfigError('trainEmoVerse: projector is of an InternVL, and the model has none', {
      argument: 'projector',
    })
  }
  const parts = projector === undefined || projector === 'lora' ? 'language_model|mlp1' : 'language_model'
  const usual = sees ? expressionOf(parts) : 'all-linear'
  const { targetModules = usual, ...rest } = lora
  return {
    ...{ r: 8, loraAlpha: 32, loraDropout: 0.05, taskType: 'CAUSAL_LM' },
    // All of an InternVL would be the vision part too, which never trains.
    targetModules: targetModules === 'all-linear' ? usual : targetModules,
    ...(projector === 'whole' && { modulesToSave: ['mlp1'] }),
    ...rest,
  }
}

/** Puts the adapter that a stage trains into a network, beside those of the stages before where its weights are packed. */
export function beginStage({ model }: EmoVerse, lora: LoraConfig): PeftModel {
  const before = peftModelOf(model)
  if (before === undefined) return checked(model, getPeftModel(model, lora) as unknown as PeftModel)
  const earlier = before.adapterNames
  before.addAdapter(TRAINED, lora)
  before.setAdapter([...earlier, TRAINED])
  return checked(model, before)
}

function checked(model: EmoVerse['model'], peft: PeftModel): PeftModel {
  const seen = model
    .namedParameters()
    .find(([name, { requiresGrad }]) => requiresGrad && name.startsWith('vision_model.'))
  if (seen === undefined) return peft
  peft.deleteAdapter(TRAINED)
  throw new ConfigError(`trainEmoVerse: lora names '${seen[0]}', and the vision part never trains`, {
    argument: 'lora',
  })
}

/** Name of the adapter that trains, as PEFT calls the only one. */
const TRAINED = 'default'

/** Writes the adapter of a stage alone. */
export const saveStage = (peft: PeftModel, folder: string): Promise<void> =>
  peft.savePretrained(folder, { selectedAdapters: [TRAINED] })

/** Makes what a stage has trained part of the network. */
export async function endStage({ model }: EmoVerse, peft: PeftModel, folder: string): Promise<void> {
  if (!isPacked(model)) {
    peft.mergeAndUnload()
    return
  }
  peft.deleteAdapter(TRAINED)
  if (peft.adapterNames.length === 0) peft.unload()
  await addAdapter(model, folder)
}
