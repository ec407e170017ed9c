import { DataError } from '../../../base/errors.js'
import type { EmotionClip } from '../../../kit/emotion/clips.js'
import { scope } from '../../../tensor/index.js'
import { openVideo, resizeImage, type Video } from '../../../vision/index.js'
import { pngAddress } from '../../../vision/png.js'
import { isVideoFile } from '../../../vision/video-audio.js'

/** Maximum size of a thumbnail in pixels: twice the size that it has in the strip. */
const MOST = { width: 120, height: 88 }

/** Reader of thumbnails, each from the middle of an utterance. It keeps the last video open: call `close`. */
export class Thumbnails {
  #open: { path: string; video: Promise<Video> } | undefined
  #failed = new Map<string, string>()

  /** Return a data URL with a thumbnail of a clip; undefined if the clip has no video, or if it cannot be read. */
  async of({ video, frames, audio, start, end }: EmotionClip): Promise<string | undefined> {
    const path = video ?? frames ?? (audio !== undefined && isVideoFile(audio) ? audio : undefined)
    if (path === undefined || this.#failed.has(path)) return undefined
    try {
      return await thumbnail(await this.#video(path), start, end)
    } catch (error) {
      if (!(error instanceof DataError)) throw error
      this.#failed.set(path, error.message)
      return undefined
    }
  }

  /** A sentence about videos that could not be read, with the first reason; '' if there is none. */
  get note(): string {
    const [why] = this.#failed.values()
    if (why === undefined) return ''
    const count = this.#failed.size
    return `Thumbnails of ${count === 1 ? '1 video' : `${count} videos`} are missing: ${why}.`
  }

  async close(): Promise<void> {
    const open = this.#open
    this.#open = undefined
    await (await open?.video.catch(() => undefined))?.close()
  }

  async #video(path: string): Promise<Video> {
    if (this.#open?.path !== path) {
      await this.close()
      this.#open = { path, video: openVideo(path) }
    }
    return this.#open!.video
  }
}

function thumbnail(video: Video, start: number | undefined, end: number | undefined): Promise<string> {
  const { frameCount, rate, width, height } = video
  const isWhole = start === undefined || rate === null
  const place = isWhole ? Math.floor(frameCount / 2) : video.framesBetween((start + (end ?? start)) / 2)[0]
  const share = Math.min(1, MOST.width / width, MOST.height / height)
  const [wide, high] = [Math.max(1, Math.round(share * width)), Math.max(1, Math.round(share * height))]
  return scope(async () => {
    const small = await resizeImage(await video.frames([place]), [high, wide], { filter: 'bilinear' })
    return pngAddress((await small.data()) as Uint8Array, wide, high)
  })
}
