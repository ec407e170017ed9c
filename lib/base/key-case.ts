/** camelCase keys as a published config.json has them, and the reverse; only the outermost keys. */
export const toSnake = (config: object): Record<string, unknown> => renamed(config, snakeCase)
export const toCamel = (config: object): Record<string, unknown> => renamed(config, camelCase)

function renamed(config: object, name: (key: string) => string): Record<string, unknown> {
  const result: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(config)) result[name(key)] = value
  return { ...result }
}

/** `hiddenSize` as `hidden_size`. */
export const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
export const camelCase = (key: string): string =>
  key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
