import { defined } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { loadTorch } from '../../../files/torch/torch.js'
import { type Device, noGrad, scope, Tensor } from '../../../tensor/index.js'
import { type SalmonnConfig, salmonnWindowFrames } from '../network/config.js'
import type { LoadSalmonnOptions } from '../network/files.js'
import { Salmonn } from '../network/network.js'
import type { SalmonnConfiguration } from './configuration.js'

/**
 * The model of a configuration: its parts, or the directory `model` that `Salmonn.save` wrote. Further options go before
 * what the configuration says.
 * @throws ConfigError where a part is not said
 */
export async function salmonnOfConfiguration(
  configuration: SalmonnConfiguration,
  options: LoadSalmonnOptions & { model?: string | undefined } = {},
): Promise<Salmonn> {
  requireForm('salmonnOfConfiguration', 'configuration', configuration, { model: 'object' })
  requireForm('salmonnOfConfiguration', 'options', options, { 'model?': 'string' })
  const { model: directory, ...load } = options
  const { model: given, device, compat } = configuration
  const { whisper, beats, llm, adapter } = given
  const all: LoadSalmonnOptions = {
    ...(device !== undefined && { device: device as Device }),
    ...(given.loadIn8bit && { quantize: 'int8' as const }),
    ...load,
    config: { ...changes(configuration), ...load.config },
  }
  const model = await (directory === undefined
    ? Salmonn.fromPretrained({ ...required({ whisper, beats, llm }), ...defined({ adapter }) }, all)
    : Salmonn.fromPretrained(directory, all))
  try {
    model.compat = compat ?? model.compat
    if (given.projection !== undefined) await loadProjection(model, given.projection)
    return model
  } catch (error) {
    model.dispose()
    throw error
  }
}

function changes({ model: given, data }: SalmonnConfiguration): Partial<SalmonnConfig> {
  const { lora, loraRank: r, loraAlpha, loraDropout, queries, secondsPerWindow, secondsPerStride } = given
  const { maxTextLength, endSymbol } = given
  return defined({
    lora: lora === false ? null : defined({ r, loraAlpha, loraDropout }),
    qformer: defined({
      queryLength: queries,
      window: secondsPerWindow === undefined ? undefined : salmonnWindowFrames(secondsPerWindow),
      stride: secondsPerStride === undefined ? undefined : salmonnWindowFrames(secondsPerStride),
    }),
    maxTextLength,
    endSymbol,
    template: data.template,
  })
}

function required(parts: { whisper: string | undefined; beats: string | null | undefined; llm: string | undefined }) {
  for (const [part, place] of Object.entries(parts)) {
    if (place !== undefined) continue
    const without = part === 'beats' ? "; 'none' where Whisper hears alone" : ''
    throw new ConfigError(`The configuration does not say where ${part} is (model.${part})${without}`, {})
  }
  return parts as { whisper: string; beats: string | null; llm: string }
}

/** A projection alone, as `speech_llama_proj_model` of the published configuration names it. */
async function loadProjection(model: Salmonn, file: string): Promise<void> {
  await scope(async () => {
    const root = (await loadTorch(file)) as Record<string, unknown>
    const state = (root.model ?? root) as Record<string, unknown>
    for (const part of ['weight', 'bias'] as const) {
      const name = `speech_llama_proj.${part}`
      const found = state[name]
      const own = model.speech_llama_proj[part] as Tensor
      if (!(found instanceof Tensor) || found.shape.join() !== own.shape.join()) {
        const what = found instanceof Tensor ? `is [${found.shape}], expected [${own.shape}]` : 'is missing'
        throw new CheckpointError(`${file}: ${name} ${what}`, { file, tensor: name })
      }
      noGrad(() => own.copy_(found))
    }
  })
}
