/**
 * Answers a spoken question in a voice, with the original's argument names; `voxtorch usdm respond` does the same, and
 * `voxtorch serve usdm` has a page to talk to it.
 *
 * `npx tsx examples/usdm-chat.ts --input_path QUESTION.wav --output_path ANSWER.wav --model_cache_dir CACHE
 * [--reference_path VOICE.wav]`: CACHE has xlsr2_1b_v2.pt and kmeans_10k.npy, to which the repositories of the rest are
 * fetched; or it is a folder that `Usdm.save` wrote.
 */
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'

const text = { type: 'string' } as const
const { values } = parseArgs({
  options: {
    ...{ input_path: text, reference_path: text, output_path: text, model_cache_dir: text },
    ...{ device: text, solver_steps: text, seed: text },
  },
})
const { input_path: input, output_path: output, model_cache_dir: cache, reference_path: reference } = values
if (input === undefined || output === undefined || cache === undefined) {
  throw new vt.ConfigError('Say --input_path FILE, --output_path FILE and --model_cache_dir DIR')
}

using model = await usdm.Usdm.fromPretrained(cache, { ...(values.device && { device: values.device as vt.Device }) })
if (!model.speaks) throw new vt.ConfigError(`${cache} has no Voicebox and vocoder, so that ${output} cannot be written`)
const {
  transcript,
  text: reply,
  wav,
} = await model.respond(input, {
  ...(reference !== undefined && { reference }),
  ...(values.solver_steps !== undefined && { steps: Number(values.solver_steps) }),
  ...(values.seed !== undefined && { seed: Number(values.seed) }),
})
console.log(`heard: ${transcript}\nreply: ${reply}`)
if (wav) await vt.writeWav(output, vt.tensor(wav.samples), { sampleRate: wav.sampleRate, format: 'float32' })
