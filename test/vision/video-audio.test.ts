import { execFile } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import {
  arange,
  languageBindAudio,
  manualSeed,
  memoryStats,
  openVideo,
  ops,
  readClip,
  scope,
  type Tensor,
  tensor,
  videoAudio,
  WavLM,
  writeWav,
} from '../../lib/index.js'
import { EmotionVoiceEncoder } from '../../lib/systems/emotion/network/voice-encoder.js'
import { difference, expectClose, type Fixture, fixture, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { nodeAv } from './node-av.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-video-audio-'))
afterAll(() => rmSync(folder, { recursive: true }))

const usual = (await fixture('vision/videos-decoded')) as Fixture<unknown>
const sounding = (await fixture('vision/videos-sounding')) as Fixture<unknown>
const endings: Record<string, string> = {
  'h264-sound': 'mp4',
  h264: 'mp4',
  'matroska-sound': 'mkv',
  'avi-sound': 'avi',
}
function fileOf(name: string): string {
  const path = join(folder, `${name}.${endings[name]}`)
  const bytes = (usual.tensors[`${name}/file/bytes`] ?? sounding.tensors[`${name}/file/bytes`])?.dataSync()
  writeFileSync(path, bytes as Uint8Array)
  return path
}
const audioOf = async (name: string) => (await videoAudio(fileOf(name))) as { samples: Tensor; sampleRate: number }

describe.skipIf(!nodeAv)('the sound of films, of npm node-av', { timeout: PATIENCE }, () => {
  test.each(['h264-sound', 'matroska-sound', 'avi-sound'])("%s: PyAV's samples", async (name) => {
    const { samples, sampleRate } = await audioOf(name)
    expect([sampleRate, samples.size(0)]).toEqual([16000, 2])
    const wanted = (usual.tensors[`${name}/out/sound`] ?? sounding.tensors[`${name}/out/sound`]) as Tensor
    const count = Math.min(800, wanted.size(1))
    const kept = samples.indexSelect(1, ops.arange(0, 16 * count, 16))
    // MP2 is decoded to 16 bits.
    expectClose(
      kept,
      wanted
        .narrow(1, 0, count)
        .to({ dtype: 'float32' })
        .div(name === 'avi-sound' ? 32768 : 1),
      1e-4,
    )
  })

  test('is read between two of its seconds, and beyond its end there is what there is', async () => {
    const whole = await audioOf('matroska-sound')
    await using video = await openVideo(fileOf('matroska-sound'))
    const part = await video.audio({ channels: 'all', start: 0.1, duration: 0.25 })
    expect(ops.equal(part.samples, whole.samples.narrow(1, 1600, 4000))).toBe(true)
    expect((await video.audio({ start: 0.75, duration: 9 })).samples.size(0)).toBe(whole.samples.size(1) - 12000)
    expect((await video.audio({ start: 100 })).samples.shape).toEqual([0])
    await expect(video.audio({ start: -1 })).rejects.toThrow(/start/)
    const clip = await videoAudio({ path: fileOf('matroska-sound'), start: 0.1, end: 0.35 }, { maxSeconds: 0.2 })
    expect(ops.equal((clip as { samples: Tensor }).samples, whole.samples.narrow(1, 1600, 3200))).toBe(true)
  })

  test('of Matroska and MP4 goes through a voice encoder and the front end of LanguageBind', async () => {
    manualSeed(1)
    const network = WavLM.fromConfig({
      ...{ hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 24, applySpecAugment: false },
      ...{ convDim: [8, 8, 8, 8, 8, 8, 8], featExtractNorm: 'layer', doStableLayerNorm: true },
      ...{ numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 2 },
    })
    const encoder = new EmotionVoiceEncoder(network.eval())
    for (const name of ['h264-sound', 'matroska-sound']) {
      const { samples } = await audioOf(name)
      const utterance = { id: 1, text: '', speaker: '', clip: { video: fileOf(name), start: 0.1, end: 0.6 } }
      const read = (await encoder.read({ id: '1', source: 'made', utterances: [utterance] }, 0)) as Tensor
      expect(difference(read, samples.narrow(1, 1600, 8000).mean(0))).toBeLessThan(1e-6)
      const heard = await languageBindAudio(fileOf(name), { targetLength: 20 })
      const wanted = await languageBindAudio({ samples, sampleRate: 16000 }, { targetLength: 20 })
      expect(difference(heard, wanted)).toBe(0)
    }
  })

  test('of two channels is heard as its first, whatever the other is', async () => {
    const { samples } = await audioOf('h264-sound')
    const options = { targetLength: 20 }
    const both = await languageBindAudio({ samples, sampleRate: 16000 }, options)
    const first = await languageBindAudio({ samples: samples.narrow(0, 0, 1), sampleRate: 16000 }, options)
    const second = await languageBindAudio({ samples: samples.narrow(0, 1, 1), sampleRate: 16000 }, options)
    expect(difference(both, first)).toBe(0)
    expect(difference(both, second)).toBeGreaterThan(0.01)
    const wav = join(folder, 'stereo.wav')
    await writeWav(wav, samples, { sampleRate: 16000, format: 'float32' })
    expect(difference(await languageBindAudio(wav, options), both)).toBeLessThan(1e-3)
  })

  test('where there is none it is said, and sound that is called a film is read as sound', async () => {
    await expect(videoAudio(fileOf('h264'))).rejects.toThrow(/h264\.mp4: expected a video with audio, got one without/)
    await expect(languageBindAudio(fileOf('h264'))).rejects.toMatchObject({ code: 'ERR_DATA' })
    const wav = join(folder, 'really.mp4')
    await scope(() => writeWav(wav, arange(800).mul(0.1).sin(), { sampleRate: 16000 }))
    expect(await videoAudio(wav)).toBe(wav)
    expect((await readClip(await videoAudio(wav))).shape).toEqual([800])
    const text = join(folder, 'text.mkv')
    writeFileSync(text, 'no film at all, but a text')
    await expect(videoAudio(text)).rejects.toThrow(/text\.mkv: expected a video file, got an unknown format/)
    const samples = tensor([0.1, 0.2])
    expect(await videoAudio(samples)).toBe(samples)
    const before = await settledTensors()
    await scope(async () => void (await audioOf('h264-sound')))
    expect(memoryStats().liveTensors).toBe(before)
  })
})

test(
  'without node-av MP4, WebM and Matroska go on to readAudio, and other films name the command',
  async () => {
    const [mp4, mkv, avi] = [fileOf('h264-sound'), fileOf('matroska-sound'), join(folder, 'other.avi')]
    copyFileSync(mkv, avi)
    const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
    const script = `
      const { videoAudio } = await import(${JSON.stringify(here('../../dist/index.js'))})
      const failure = (work) => work.then(() => 'nothing', ({ name, message }) => name + ': ' + message)
      console.log(JSON.stringify({
        mp4: await videoAudio({ path: ${JSON.stringify(mp4)}, start: 0.2 }),
        mkv: await videoAudio(${JSON.stringify(mkv)}),
        avi: await failure(videoAudio(${JSON.stringify(avi)})),
      }))`
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--import', here('without-peers.mjs'), '--input-type=module', '-e', script],
      { timeout: PATIENCE },
    )
    const told = JSON.parse(stdout)
    expect(told.mp4).toEqual({ path: mp4, start: 0.2 })
    expect(told.mkv).toBe(mkv)
    expect(told.avi).toMatch(/^DataError: .*other\.avi: .*node-av, which is not installed: npm install node-av/)
  },
  PATIENCE,
)
