import { ConfigError } from '../../../base/errors.js'
import { InternVL } from '../../../models/internvl/internvl.js'
import type { LoraConfig } from '../../../peft/config.js'
import { getPeftModel, type PeftModel, peftModelOf } from '../../../peft/model.js'
import type { PROJECTOR_TRAINING, SPEECH_TRAINING } from '../configuration/settings.js'
import { addAdapter, isPacked } from '../network/files.js'
import type { EmoVerse } from '../network/network.js'

export type ProjectorTraining = (typeof PROJECTOR_TRAINING)[number]
export type SpeechTraining = (typeof SPEECH_TRAINING)[number]

/** Return ms-swift's expression for this family: linear layers of the given parts, without the head and the vision encoder. */
const expressionOf = (parts: string) => `^(${parts})(?!.*(lm_head|output|emb|wte|shared)).*`

/** Return the adapter configuration of a stage: that of the published scripts, with changes. */
export function stageAdapter(
  { model }: EmoVerse,
  lora: Partial<LoraConfig>,
  projector: ProjectorTraining | undefined,
): LoraConfig {
  const isInternVL = model instanceof InternVL
  if (projector !== undefined && !isInternVL) {
    throw new ConfigError(
      'trainEmoVerse.projector: expected an InternVL, got a text-only language model. Leave projector out.',
      {
        argument: 'projector',
      },
    )
  }
  const parts = projector === undefined || projector === 'lora' ? 'language_model|mlp1' : 'language_model'
  const usual = isInternVL ? expressionOf(parts) : 'all-linear'
  const { targetModules = usual, ...rest } = lora
  return {
    ...{ r: 8, loraAlpha: 32, loraDropout: 0.05, taskType: 'CAUSAL_LM' },
    // In an InternVL 'all-linear' would include the vision encoder, which never trains.
    targetModules: targetModules === 'all-linear' ? usual : targetModules,
    ...(projector === 'whole' && { modulesToSave: ['mlp1'] }),
    ...rest,
  }
}

/** Add a stage's adapter to the network; with quantized weights, next to those of the stages before. */
export function beginStage({ model }: EmoVerse, lora: LoraConfig): PeftModel {
  const before = peftModelOf(model)
  if (before === undefined) return checked(model, getPeftModel(model, lora) as unknown as PeftModel)
  const earlier = before.adapterNames
  before.addAdapter(TRAINED, lora)
  before.setAdapter([...earlier, TRAINED])
  return checked(model, before)
}

function checked(model: EmoVerse['model'], peft: PeftModel): PeftModel {
  const visionParameter = model
    .namedParameters()
    .find(([name, { requiresGrad }]) => requiresGrad && name.startsWith('vision_model.'))
  if (visionParameter === undefined) return peft
  peft.deleteAdapter(TRAINED)
  throw new ConfigError(
    `trainEmoVerse.lora: expected targetModules without the vision encoder, which never trains, got '${visionParameter[0]}'.`,
    {
      argument: 'lora',
    },
  )
}

/** Name of the adapter that trains: PEFT's default name. */
const TRAINED = 'default'

/** Save only the adapter of the stage. */
export const saveStage = (peft: PeftModel, folder: string): Promise<void> =>
  peft.savePretrained(folder, { selectedAdapters: [TRAINED] })

/** Merge the trained adapter into the network; with quantized weights, freeze it next to them. */
export async function endStage({ model }: EmoVerse, peft: PeftModel, folder: string): Promise<void> {
  if (!isPacked(model)) {
    peft.mergeAndUnload()
    return
  }
  peft.deleteAdapter(TRAINED)
  if (peft.adapterNames.length === 0) peft.unload()
  await addAdapter(model, folder)
}
