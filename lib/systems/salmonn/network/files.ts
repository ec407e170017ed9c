import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isSamePlace, partFiles, writeFolderAtomically } from '../../../base/atomic-folder.js'
import { defined, requireObject, requireString } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { type ChangesOf, functionOf, objectOf, settings, unchecked } from '../../../base/settings.js'
import { writeJson } from '../../../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../../../files/safetensors/safetensors.js'
import { loadTorch } from '../../../files/torch/torch.js'
import { resolveModel } from '../../../hub/index.js'
import { Beats } from '../../../models/beats/beats.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { readConfig, requireSaved } from '../../../models/pretrained.js'
import { sizesOf } from '../../../models/q-former/files.js'
import { tensorsOf } from '../../../models/weights.js'
import { WhisperEncoder } from '../../../models/whisper/whisper.js'
import type { NetworkOptions } from '../../../nn/parameter.js'
import { type QuantizationScheme, quantizationOf } from '../../../nn/quantized-weight.js'
import type { PackingOptions } from '../../../peft/quantize.js'
import { type Device, type DType, noGrad, scope, type Tensor } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import { Tokenizer } from '../../../text/index.js'
import { checkSalmonnAdapter, salmonnPart } from './adapter.js'
import { checkBase, checkVicuna, fingerprint, type SalmonnBase } from './base.js'
import { type SalmonnConfig, salmonnConfig, salmonnPacking } from './config.js'
import type { Salmonn, SalmonnOptions, SalmonnParts } from './network.js'
import { type SalmonnConflict, settledConfig } from './saved-config.js'

/** Locations of the parts: directories, files, or repositories of the Hugging Face hub. */
export interface SalmonnPartsFrom {
  /** A whole Whisper model or its encoder. */
  whisper: string
  /** The published `.pt`, or a directory that `Beats.save` wrote; null for no BEATs. */
  beats: string | null
  /** Language model: safetensors or `.bin`, in one file or in shards. */
  llm: string
  /** `salmonn_v1.pth`, an `adapter.safetensors`, or a folder with one. Default: new weights. */
  adapter?: string
  /** Tokenizer. Default: that of `llm`. */
  tokenizer?: string
}

const LOAD_SETTINGS = settings({
  whisper: { type: 'string' },
  beats: { type: 'string', nullable: true },
  llm: { type: 'string' },
  tokenizer: { type: 'string' },
  device: { type: unchecked<Device>() },
  /** Dtype of the language model. The default needs half the memory of float32. */
  dtype: { type: unchecked<DType>(), default: 'bfloat16' },
  /** Dtype of encoders, Q-Former and projection. */
  encoderDtype: { type: unchecked<DType>(), default: 'float32' },
  /** Random seed of new weights. Default: the default generator. */
  seed: { type: unchecked<number | bigint>() },
  /**
   * Quantization of the language model's layers, layer by layer from the mapped file; see {@link quantize}. false: dequantize those of a
   * GGUF file.
   */
  quantize: { type: unchecked<QuantizationScheme | PackingOptions | false>() },
  /** Values that are not in the files: heads and windows of the Q-Former, the scale of LoRA. */
  config: { type: objectOf<Partial<SalmonnConfig>>(), default: {} },
  /** Expected SHA-256 of the published file of BEATs; see `Beats.fromPretrained`. */
  beatsSha256: { type: unchecked<string>() },
  /** Whether to load an adapter that was trained with another language model. */
  allowOtherBase: { type: 'boolean', default: false },
  /**
   * Called for each value of `config` that contradicts the saved model; the saved value is used. Without it a contradiction about shapes is
   * a ConfigError, and other values of `config` are used.
   */
  onConflict: { type: functionOf<(conflict: SalmonnConflict) => void>() },
})
const SAVE_SETTINGS = settings({ whole: { type: 'boolean', default: false } })

/** Options of loading. `whisper`, `beats`, `llm` and `tokenizer` replace the locations that a folder records. @interface */
export type LoadSalmonnOptions = ChangesOf<typeof LOAD_SETTINGS.table>

type Build = (config: SalmonnConfig, options: NetworkOptions & { parts: SalmonnParts; initialize: boolean }) => Salmonn

const [ADAPTER, CONFIG, TOKENIZER] = ['adapter.safetensors', 'config.json', 'tokenizer']
const FOLDERS = { whisper: 'speech_encoder', beats: 'beats', llm: 'llm' } as const

interface Adapter {
  tensors: Map<string, Tensor>
  file: string
  /** Whether it is a `torch.save` file, as the authors' files are. */
  isPublished: boolean
}

interface Plan {
  parts: SalmonnPartsFrom
  /** Configuration in the adapter's folder. */
  saved: Partial<SalmonnConfig>
  base?: SalmonnBase
  /** Parts that were still untrained when the model was saved. */
  untrained?: ('qformer' | 'projection')[]
  /** Audio options of the saved model. */
  encoding?: SalmonnOptions
}

export async function loadSalmonn(
  from: SalmonnPartsFrom | string,
  options: LoadSalmonnOptions,
  build: Build,
): Promise<Salmonn> {
  const where = 'Salmonn.fromPretrained'
  const read = LOAD_SETTINGS.read(where, options)
  const { device, dtype, encoderDtype, allowOtherBase, config: given, onConflict } = read
  salmonnPacking(where, options.quantize)
  const plan = typeof from === 'string' ? await ownPlan(from, options) : await publishedPlan(from)
  return scope(async () => {
    const created: { dispose(): void }[] = []
    try {
      const adapter = plan.parts.adapter === undefined ? null : await readAdapter(plan.parts.adapter)
      const saved = adapter === null ? plan.saved : sizesIn(adapter, plan.saved)
      const config = settledConfig(adapter?.file, saved, given, onConflict)
      const encoders = { ...(device && { device }), dtype: encoderDtype }
      const whisper = await WhisperEncoder.fromPretrained(plan.parts.whisper, encoders)
      created.push(whisper)
      const beats = plan.parts.beats === null ? null : await loadBeats(plan.parts.beats, encoders, options)
      if (beats) created.push(beats)
      const llm = await loadLlm(plan.parts.llm, dtype, options)
      created.push(llm)
      const found = fingerprint(llm)
      if (!allowOtherBase && adapter) {
        if (plan.base) checkBase(found, plan.base, adapter.file)
        else if (adapter.isPublished) checkVicuna(found, adapter.file)
      }
      const rest = { ...encoders, parts: { whisper, beats, llm }, initialize: adapter === null }
      const model = withSeed(options.seed, () => build(config, rest), device)
      // The model owns the parts now.
      created.splice(0, created.length, model)
      const { parts } = plan
      model.origin = { whisper: parts.whisper, beats: parts.beats, llm: parts.llm }
      if (adapter) fill(model, adapter)
      if (adapter && plan.untrained) model.noteUntrained(plan.untrained)
      warnOfUntrained(model, typeof from === 'string' ? from : where)
      if (plan.encoding) {
        // Check options of a file like those of a call.
        model.encoding(join(from as string, CONFIG), plan.encoding)
        model.compat = plan.encoding.compat
        model.overlap = plan.encoding.overlap
      }
      model.tokenizer = await Tokenizer.fromPretrained(plan.parts.tokenizer ?? (await tokenizerPlace(plan.parts.llm)))
      // An end symbol that is not a single token would not end generation.
      const { eosToken } = model.tokenizer
      if (config.endSymbol === undefined && model.tokenizer.tokenToId('</s>') === undefined && eosToken !== null) {
        model.config.endSymbol = eosToken
      }
      return model.eval() as Salmonn
    } catch (error) {
      for (const one of created.reverse()) one.dispose()
      throw error
    }
  })
}

async function publishedPlan(from: SalmonnPartsFrom): Promise<Plan> {
  const where = 'Salmonn.fromPretrained'
  requireObject(where, 'the parts', from)
  for (const part of ['whisper', 'llm'] as const) requireString(where, part, from[part])
  if (from.beats !== null) requireString(where, 'beats', from.beats)
  for (const part of ['adapter', 'tokenizer'] as const) {
    if (from[part] !== undefined) requireString(where, part, from[part])
  }
  // A folder that `save` wrote contains an adapter and its configuration.
  const { adapter } = from
  const isSaved = adapter !== undefined && existsSync(join(adapter, ADAPTER)) && existsSync(join(adapter, CONFIG))
  if (!isSaved) return { parts: { ...from }, saved: {} }
  const { qformer, lora, maxTextLength, endSymbol, template } = (await readConfig(adapter)) as SalmonnConfig
  return { parts: { ...from }, saved: defined({ qformer, lora, maxTextLength, endSymbol, template }) }
}

async function ownPlan(directory: string, options: LoadSalmonnOptions): Promise<Plan> {
  requireSaved(directory, 'Salmonn')
  const {
    modelType,
    base,
    parts,
    compat,
    overlap,
    untrained,
    architectures: _,
    ...config
  } = await readConfig(directory)
  if (modelType !== 'salmonn') {
    throw new CheckpointError(
      `${join(directory, CONFIG)}: expected model_type 'salmonn', got '${String(modelType)}'.`,
      {
        file: join(directory, CONFIG),
      },
    )
  }
  const recorded = (parts ?? {}) as Partial<Record<keyof typeof FOLDERS, string | null>>
  const place = (part: keyof typeof FOLDERS): string => {
    const own = join(directory, FOLDERS[part])
    const found = options[part] ?? (existsSync(own) ? own : recorded[part])
    if (found != null) return found
    throw new ConfigError(
      `${directory}: expected the part ${part}, got none. Set its location in the options: { ${part}: … }.`,
      { part },
    )
  }
  const tokenizer = options.tokenizer ?? join(directory, TOKENIZER)
  const { whisper: _w, beats, llm: _l, ...rest } = config as SalmonnConfig
  return {
    parts: {
      whisper: place('whisper'),
      beats: beats === null ? null : place('beats'),
      llm: place('llm'),
      adapter: join(directory, ADAPTER),
      ...(existsSync(tokenizer) && { tokenizer }),
    },
    saved: rest,
    ...(base !== undefined && { base: base as SalmonnBase }),
    untrained: (['qformer', 'projection'] as const).filter(
      (part) => Array.isArray(untrained) && untrained.includes(part),
    ),
    encoding: { compat, overlap } as SalmonnOptions,
  }
}

const NAMES = {
  qformer: ['speech_query_tokens', 'ln_speech', 'ln_audio', 'speech_Qformer'],
  projection: ['speech_llama_proj'],
}

/** Warn of newly initialized weights, as transformers does. */
function warnOfUntrained(model: Salmonn, where: string): void {
  const names = model.untrainedParts().flatMap((part) => NAMES[part])
  if (names.length === 0) return
  const own = names.filter((name) => name !== 'ln_audio' || model.ln_audio)
  process.emitWarning(
    `${where}: ${own.join(', ')} are newly initialized, not trained: answers do not follow from the audio. Train them with \`voxtorch salmonn train\` or trainSalmonn, or load trained ones (adapter).`,
    'UntrainedWarning',
  )
}

function loadBeats(
  from: string,
  encoders: NetworkOptions,
  { beatsSha256: sha256 }: LoadSalmonnOptions,
): Promise<Beats> {
  return Beats.fromPretrained(from, { ...encoders, ...(sha256 !== undefined && { sha256 }) })
}

/** Return the location of the tokenizer, which a GGUF file contains. */
const tokenizerPlace = async (llm: string): Promise<string> =>
  statSync(llm, { throwIfNoEntry: false })?.isFile() ? llm : resolveModel(llm, {})

/** Load without copying if the dtype is that of the file. Quantization reads layer by layer. */
function loadLlm(from: string, dtype: DType, { device, quantize }: LoadSalmonnOptions): Promise<DecoderLM> {
  return DecoderLM.fromPretrained(from, { ...defined({ device, quantize }), dtype, mmap: true })
}

async function readAdapter(from: string): Promise<Adapter> {
  const file = statSync(from, { throwIfNoEntry: false })?.isDirectory() ? join(from, ADAPTER) : from
  if (!existsSync(file)) throw new CheckpointError(`${file}: expected an existing adapter file.`, { file })
  if (file.endsWith('.safetensors')) {
    const { tensors } = await loadSafetensors(file)
    return { tensors: new Map(Object.entries(tensors)), file, isPublished: false }
  }
  const tensors = new Map(Object.entries(tensorsOf(await loadTorch(file, {}))))
  if (tensors.size > 0) return { tensors, file, isPublished: true }
  throw new CheckpointError(`${file}: expected an adapter of SALMONN with tensors under 'model', got none.`, { file })
}

/** Return the configuration of a folder, with sizes from the file's tensors. */
function sizesIn({ tensors, file }: Adapter, config: Partial<SalmonnConfig>): SalmonnConfig {
  const speech = [...tensors].filter(([name]) => name.startsWith('speech_'))
  const { encoderWidth: _, ...qformer } = sizesOf(new Map(speech.map(([name, value]) => [name.slice(7), value])), file)
  const factors = [...tensors].filter(([name]) => name.includes('.lora_A.'))
  const rank = factors[0]?.[1].size(0)
  const targetModules = [...new Set(factors.map(([name]) => name.split('.lora_A.')[0]?.split('.').at(-1) as string))]
  const found = rank === undefined ? undefined : { r: rank, targetModules }
  const lora = config.lora === null ? null : (config.lora ?? found) && { ...found, ...config.lora }
  return { ...config, qformer: { ...qformer, ...config.qformer }, ...(lora !== undefined && { lora }) }
}

function fill(model: Salmonn, { tensors, file, isPublished }: Adapter): void {
  const own = new Map<string, Tensor>(model.namedParameters())
  const hasLora = [...tensors.keys()].some((name) => name.includes('.lora_'))
  const isNeeded = (name: string): boolean => {
    const part = salmonnPart(name)
    // The first stage of training has no LoRA.
    return part === 'qformer' || part === 'projection' || (part === 'lora' && (hasLora || isPublished))
  }
  const shapes = (some: Iterable<[string, Tensor]>) => new Map([...some].map(([name, { shape }]) => [name, shape]))
  const needed = shapes([...own].filter(([name]) => isNeeded(name)))
  const { unexpected, ignored } = checkSalmonnAdapter(shapes(tensors), needed, file)
  checkTables(model, tensors, ignored, file)
  // Files of voxtorch can contain trained encoders.
  const others = isPublished ? [] : unexpected.filter((name) => own.has(name))
  const strange = unexpected.filter((name) => !others.includes(name))
  const mismatched = others.filter((name) => tensors.get(name)?.shape.join() !== own.get(name)?.shape.join())
  if (strange.length > 0 || mismatched.length > 0) {
    const list = (names: string[]) => `${names.slice(0, 10).join(', ')}${names.length > 10 ? ', …' : ''}`
    const what = [
      strange.length > 0 && `expected only tensors of this SALMONN, got ${list(strange)}`,
      mismatched.length > 0 && `expected the shapes of this SALMONN, got others for ${list(mismatched)}`,
    ].filter(Boolean)
    throw new CheckpointError(`${file}: ${what.join('; ')}`, { file, unexpected: strange, mismatched })
  }
  noGrad(() => {
    for (const name of [...needed.keys(), ...others]) (own.get(name) as Tensor).copy_(tensors.get(name) as Tensor)
  })
}

const TABLE = /^beats\.encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight$/

/** Check that the file's copies of BEATs' position table match the loaded BEATs. */
function checkTables(model: Salmonn, tensors: Map<string, Tensor>, ignored: string[], file: string): void {
  const own = model.beats?.stateDict()['encoder.layers.0.self_attn.relative_attention_bias.weight']
  if (!own) return
  for (const name of ignored.filter((name) => TABLE.test(name))) {
    const table = tensors.get(name) as Tensor
    const isSame = noGrad(() =>
      scope(() => {
        if (table.shape.join() !== own.shape.join()) return false
        const [a, b] = [table, own].map((each) => each.detach().to({ dtype: 'float32', device: 'cpu' })) as [
          Tensor,
          Tensor,
        ]
        return Number(a.sub(b).abs().max().item()) <= 1e-2 * Number(b.abs().max().item())
      }),
    )
    if (isSame) continue
    throw new CheckpointError(
      `${file}: ${name}: expected the table of the loaded BEATs, got another one. SALMONN needs BEATs_iter3+ (AS2M), fine-tuned, cpt2.`,
      { file, tensor: name },
    )
  }
}

export async function saveSalmonn(model: Salmonn, directory: string, options: { whole?: boolean }): Promise<void> {
  const where = 'Salmonn.save'
  requireString(where, 'directory', directory)
  const { whole } = SAVE_SETTINGS.read(where, options)
  const { speech_encoder, beats, llm } = model
  if (whole) {
    if (!speech_encoder || (model.config.beats && !beats))
      throw new ConfigError(
        `${where}.whole: expected a model with its encoders, got one whose encoders were freed. Save without { whole: true }.`,
        {},
      )
    if (llm.modules().some((module) => quantizationOf(module))) {
      throw new ConfigError(
        `${where}.whole: expected a language model without quantization, got a quantized one. Save without { whole: true }.`,
        {},
      )
    }
  }
  const parameters = model.namedParameters().filter(([name, { requiresGrad }]) => {
    const part = salmonnPart(name)
    return part === 'qformer' || part === 'projection' || part === 'lora' || (requiresGrad && !whole)
  })
  const { origin } = model
  const save = async (folder: string) => {
    if (whole) {
      await speech_encoder?.save(join(folder, FOLDERS.whisper))
      await beats?.save(join(folder, FOLDERS.beats))
      await llm.save(join(folder, FOLDERS.llm), { withoutAdapters: true })
    }
    const parts = whole || !origin ? {} : { parts: origin }
    await writeJson(join(folder, CONFIG), { ...fileConfig(model), ...parts }, { indent: 2 })
    await saveSafetensors(join(folder, ADAPTER), Object.fromEntries(parameters), { format: 'pt' })
    if (model.hasTokenizer) model.tokenizer.saveTo(join(folder, TOKENIZER))
  }
  // Loading prefers parts in the folder. The model itself may have been loaded from there.
  const isOrigin = (place: string) => Object.values(origin ?? {}).some((one) => one != null && isSamePlace(one, place))
  const earlier = (folder: string) => {
    const isOld = (name: string) => (whole ? name === FOLDERS.beats && !beats : !isOrigin(join(folder, name)))
    const old: string[] = Object.values(FOLDERS).filter(isOld)
    return partFiles(folder, model.hasTokenizer ? old : [...old, TOKENIZER])
  }
  await writeFolderAtomically(directory, CheckpointError, save, earlier)
}

function fileConfig(model: Salmonn): object {
  const { whisper, beats, llm, qformer, lora, maxTextLength, endSymbol, template } = salmonnConfig(model.config)
  const untrained = model.untrainedParts()
  return {
    architectures: ['Salmonn'],
    model_type: 'salmonn',
    whisper,
    beats,
    llm,
    qformer,
    lora,
    maxTextLength,
    endSymbol,
    template,
    ...(model.compat && { compat: model.compat }),
    ...(model.overlap !== undefined && { overlap: model.overlap }),
    base: fingerprint(model.llm),
    ...(untrained.length > 0 && { untrained }),
  }
}
