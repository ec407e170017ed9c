import type { FuzzTarget } from './target.js'
import { target as video } from './video.js'

/** Of video files those whose boxes are MP4's. */
export const target: FuzzTarget = {
  ...video,
  name: 'mp4',
  seeds: () => video.seeds().filter((bytes) => Buffer.from(bytes.subarray(4, 8)).toString('latin1') === 'ftyp'),
}
