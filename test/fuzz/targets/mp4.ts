import type { FuzzTarget } from './target.js'
import { target as video } from './video.js'

/** Select the video files with MP4 boxes. */
export const target: FuzzTarget = {
  ...video,
  name: 'mp4',
  seeds: () => video.seeds().filter((bytes) => Buffer.from(bytes.subarray(4, 8)).toString('latin1') === 'ftyp'),
}
