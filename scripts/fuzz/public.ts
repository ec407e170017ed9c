import type { Target } from './targets.js'
export function publicTargets(): Target[] {
  return []
}
