import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-model-type-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** A folder that says what it is, and holds nothing else. */
function of(modelType: unknown): string {
  const directory = join(folder, String(modelType))
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ model_type: modelType, pad_token_id: -1 }))
  return directory
}

const networks = {
  WavLM: vt.WavLM,
  Wav2Vec2: vt.Wav2Vec2,
  Hubert: vt.Hubert,
  Data2VecAudio: vt.Data2VecAudio,
  Wav2Vec2Conformer: vt.Wav2Vec2Conformer,
  Wav2Vec2Bert: vt.Wav2Vec2Bert,
  Whisper: vt.Whisper,
  WhisperEncoder: vt.WhisperEncoder,
  Roberta: vt.Roberta,
  RobertaForMaskedLM: vt.RobertaForMaskedLM,
  DecoderLM: vt.DecoderLM,
  Beats: vt.Beats,
  QFormer: vt.QFormer,
  Moonshine: vt.Moonshine,
  Mimi: vt.Mimi,
  AudioLM: vt.AudioLM,
}

describe.each(Object.entries(networks))('%s', (name, network) => {
  it('names the model type of a folder that is another network, before anything else', async () => {
    const [type, loader] = name === 'DecoderLM' ? ['whisper', 'Whisper'] : ['llama', 'DecoderLM']
    const error = await network.fromPretrained(of(type)).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(vt.CheckpointError)
    expect((error as Error).message).toMatch(
      new RegExp(`config\\.json: model_type: expected '.*' for .*, got "${type}"\\.`),
    )
    expect((error as Error).message).toMatch(new RegExp(` Load it with ${loader}\\.$`))
    await expect(network.fromPretrained(of('t5'))).rejects.toThrow(/model_type: expected .*, got "t5"/)
    await expect(network.fromPretrained(of(7))).rejects.toThrow(/model_type: expected .*, got 7/)
  })

  it('takes only an object for a configuration', () => {
    const Network = network as unknown as new (config: unknown) => unknown
    for (const config of [Symbol('x'), 'llama-7b', 7, null, undefined, () => ({}), [1], true]) {
      expect(() => new Network(config), String(config)).toThrow(vt.ConfigError)
    }
  })
})

it('so do SPECTRA and its encoders', async () => {
  await expect(vt.Spectra.fromPretrained(of('llama'))).rejects.toThrow(
    /expected 'spectra' for Spectra, got "llama"\. Load it with DecoderLM/,
  )
  const load = vt.Spectra.fromPretrained({ text: of('wavlm'), audio: of('roberta') })
  await expect(load).rejects.toThrow(/expected 'roberta' for Spectra's text encoder, got "wavlm"/)
})
