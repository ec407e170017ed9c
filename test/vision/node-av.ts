import { createRequire } from 'node:module'

/** npm's node-av takes 170 MB, so nothing here depends on it: what reads video files is left out by name where it is missing. */
export const nodeAv = (() => {
  try {
    createRequire(import.meta.url).resolve('node-av/lib')
    return true
  } catch {
    return false
  }
})()
