import { createRequire } from 'node:module'

/** Whether npm's node-av is there, which has no FFmpeg for every machine: what reads video files is left out by name where it is missing. */
export const nodeAv = (() => {
  try {
    createRequire(import.meta.url).resolve('node-av/lib')
    return true
  } catch {
    return false
  }
})()
