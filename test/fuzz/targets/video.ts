import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DataError } from '../../../lib/index.js'
import { type Av, VideoDecoder, VideoFault } from '../../../lib/vision/video-decoder.js'
import { imageFiles } from './image.js'
import type { FuzzTarget } from './target.js'

// By a name that the compiler does not follow: it is there for those who have it.
const NAME = 'node-av/lib'
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-video-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
let av: Av | undefined

/** MP4, Matroska, WebM, MPEG-TS and AVI, decoded where a crash of FFmpeg would end the process. */
export const target: FuzzTarget = {
  name: 'video',
  words: ['moov', 'mdat', 'stts', 'ctts', 'stss', 'stsz', 'avcC', 'elst', '\x1a\x45\xdf\xa3', '\0\0\0\x01', 'RIFF'],
  seeds: () => imageFiles('videos-decoded'),
  async run(bytes) {
    av ??= (await import(NAME)) as Av
    const path = join(folder, 'broken.mp4')
    writeFileSync(path, bytes)
    let decoder: VideoDecoder | undefined
    try {
      decoder = new VideoDecoder(av, path, { maxPixels: 1 << 20, threads: 1 }, () => {})
      const { frameCount, audio } = decoder.facts
      for (const place of new Set([frameCount - 1, 0, frameCount >> 1])) [...decoder.frames([place], () => {})]
      if (audio !== null) for (const _ of decoder.audio(() => {}));
    } catch (error) {
      throw error instanceof VideoFault ? new DataError(error.message) : error
    } finally {
      decoder?.close()
    }
  },
}
