import { defined, shown } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { loadTorch } from '../../../files/torch/torch.js'
import { type Device, noGrad, scope, Tensor } from '../../../tensor/index.js'
import { type SalmonnConfig, salmonnWindowFrames } from '../network/config.js'
import type { LoadSalmonnOptions } from '../network/files.js'
import { Salmonn } from '../network/network.js'
import type { SalmonnConfiguration } from './configuration.js'

/**
 * Load the model of a configuration: its parts, or the directory `model` that `Salmonn.save` wrote. `options` override the configuration.
 * A saved model keeps its LoRA rank, scale and targets and its Q-Former's queries and windows: a contradicting value of the configuration
 * is added to `configuration.ignored`.
 *
 * @throws ConfigError if a part is missing
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
    onConflict: ({ key, given: value, saved, file }) =>
      void configuration.ignored.push({
        key: keyOf(key),
        reason: `${file} has ${key} ${shown(saved)}, not ${shown(value)}`,
      }),
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
  const adapter = defined({ r, loraAlpha, loraDropout })
  return defined({
    // Undefined without a setting: a model that was saved without LoRA stays without.
    lora: lora === false ? null : lora || Object.keys(adapter).length > 0 ? adapter : undefined,
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

/** Return the key in a configuration file for a value of the network's configuration. */
const keyOf = (key: string): string =>
  ({
    lora: 'lora',
    'lora.r': 'loraRank',
    'lora.loraAlpha': 'loraAlpha',
    'qformer.queryLength': 'queries',
    'qformer.window': 'secondsPerWindow',
    'qformer.stride': 'secondsPerStride',
  })[key] ?? key

function required(parts: { whisper: string | undefined; beats: string | null | undefined; llm: string | undefined }) {
  for (const [part, place] of Object.entries(parts)) {
    if (place !== undefined) continue
    const published = part === 'llm' ? 'llama_path' : `${part}_path`
    const without = part === 'beats' ? ", or 'none' to do without BEATs" : ''
    throw new ConfigError(
      `The configuration: expected a folder, file or name for ${part} at model.${part} (in the published form model.${published}), got nothing. Set it${without}, or give a saved model (--model).`,
      { key: `model.${part}` },
    )
  }
  return parts as { whisper: string; beats: string | null; llm: string }
}

/** Load only the projection, as `speech_llama_proj_model` of the published configuration does. */
async function loadProjection(model: Salmonn, file: string): Promise<void> {
  await scope(async () => {
    const root = (await loadTorch(file)) as Record<string, unknown>
    const state = (root.model ?? root) as Record<string, unknown>
    for (const part of ['weight', 'bias'] as const) {
      const name = `speech_llama_proj.${part}`
      const found = state[name]
      const own = model.speech_llama_proj[part] as Tensor
      if (!(found instanceof Tensor) || found.shape.join() !== own.shape.join()) {
        const what = found instanceof Tensor ? `[${found.shape}]` : 'no such tensor'
        throw new CheckpointError(`${file}: ${name}: expected the shape [${own.shape}], got ${what}.`, {
          file,
          tensor: name,
        })
      }
      noGrad(() => own.copy_(found))
    }
  })
}
