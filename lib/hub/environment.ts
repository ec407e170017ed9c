import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { withoutEnd } from '../base/words.js'

/**
 * Settings from environment variables, with the names and meanings of Python's huggingface_hub
 * (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).
 */

const variable = (name: string): string | undefined => process.env[name] || undefined

const isTrue = (value: string | undefined): boolean => /^(?:1|on|yes|true)$/i.test(value ?? '')

/** Expand ~ and $NAME in a path. */
function expanded(path: string): string {
  const home = path.replace(/^~(?=\/|$)/, () => homedir())
  return home.replace(/\$(?:(\w+)|\{([^}]*)\})/g, (all, bare, braced) => process.env[bare ?? braced] ?? all)
}

function hubHome(): string {
  return expanded(variable('HF_HOME') ?? join(variable('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface'))
}

/** Return the cache folder. */
export function hubCache(): string {
  return expanded(variable('HF_HUB_CACHE') ?? variable('HUGGINGFACE_HUB_CACHE') ?? join(hubHome(), 'hub'))
}

export const hubOffline = (): boolean => isTrue(variable('HF_HUB_OFFLINE') ?? variable('TRANSFORMERS_OFFLINE'))

/** Return the URL of the server, without a slash at the end. */
export function hubEndpoint(): string {
  const endpoint = variable('HF_ENDPOINT') ?? 'https://huggingface.co'
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new ConfigError(`HF_ENDPOINT: expected an http or https URL, got ${shown(endpoint)}.`, { value: endpoint })
  }
  return withoutEnd(endpoint, /\//)
}

/** Return the timeout of a request in seconds, counted from the last received data. */
export function hubTimeout(): number {
  const text = variable('HF_HUB_DOWNLOAD_TIMEOUT') ?? '10'
  const seconds = Number(text)
  if (!(seconds > 0)) {
    throw new ConfigError(`HF_HUB_DOWNLOAD_TIMEOUT: expected a positive number of seconds, got ${shown(text)}.`)
  }
  return seconds
}

/** Return the access token: `HF_TOKEN`, or the token stored by `hf auth login`. */
export function hubToken(): string | undefined {
  if (isTrue(variable('HF_HUB_DISABLE_IMPLICIT_TOKEN'))) return undefined
  const token = (variable('HF_TOKEN') ?? variable('HUGGING_FACE_HUB_TOKEN'))?.trim()
  if (token) return token
  try {
    return readFileSync(expanded(variable('HF_TOKEN_PATH') ?? join(hubHome(), 'token')), 'utf8').trim() || undefined
  } catch {
    // Without a login the file does not exist.
    return undefined
  }
}
