/** Style sheet, in the colors of the reports, for light and dark mode. */
export const STYLE: string = `
:root{color-scheme:light dark;--back:#f6f5f2;--card:#fff;--text:#1d2733;--soft:#5a6472;--line:#dcd9d2;--main:#0f6b66;--on-main:#fff;
--tint:#e3efed;--wave:#8fb5b2;--bad:#b03a2e;--bad-back:#fbecea}
@media (prefers-color-scheme:dark){:root{--back:#14191f;--card:#1d242c;--text:#e6e9ec;--soft:#9ba6b2;--line:#323b46;--main:#4fb8ae;--on-main:#0c1a19;
--tint:#1c3230;--wave:#4c7773;--bad:#ff8f82;--bad-back:#3a2321}}
*{box-sizing:border-box}[hidden]{display:none!important}
html{height:100%}
body{margin:0;min-height:100%;display:flex;flex-direction:column;background:var(--back);color:var(--text);
font:16px/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
header{position:sticky;top:0;z-index:2;background:var(--back);border-bottom:1px solid var(--line)}
.bar,main,.inner{width:100%;max-width:820px;margin:0 auto;padding-left:20px;padding-right:20px}
.bar{display:flex;align-items:center;gap:12px;min-height:56px}
h1{font-size:19px;letter-spacing:-.01em;margin:0}
.model{flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--soft);font-size:14px}
main{flex:1;padding-top:28px;padding-bottom:28px;display:flex;flex-direction:column}
.welcome{margin:auto 0;text-align:center}.welcome h2{font-size:30px;line-height:1.2;letter-spacing:-.01em;margin:0 0 10px}
.welcome p{color:var(--soft);max-width:34em;margin:0 auto 22px}
.ideas{display:flex;flex-wrap:wrap;gap:8px;justify-content:center}
button,summary,input,textarea{font:inherit;color:inherit}
button,summary{cursor:pointer;border-radius:8px;border:1px solid var(--line);background:var(--card);padding:6px 14px;min-height:38px;line-height:1.5}
button:hover:not(:disabled),summary:hover{border-color:var(--main)}button:disabled{opacity:.5;cursor:default}
:focus-visible{outline:2px solid var(--main);outline-offset:2px}
.quiet{background:none;font-size:14px}
.ask{background:var(--main);border-color:var(--main);color:var(--on-main);font-weight:600;min-width:86px}
.stop{border-color:var(--bad);color:var(--bad);font-weight:600;min-width:86px}
.log{display:flex;flex-direction:column;gap:18px}
.turn{max-width:88%;overflow-wrap:anywhere}.turn p{margin:0;white-space:pre-wrap}
.turn h3{font-size:13px;font-weight:600;color:var(--soft);margin:0 0 4px}
.user{align-self:flex-end;width:fit-content;background:var(--tint);padding:10px 16px 12px;border-radius:14px 14px 4px 14px}
.user .clips{margin-bottom:8px}
.assistant{align-self:flex-start;background:var(--card);padding:10px 16px 12px;border-radius:14px 14px 14px 4px;border:1px solid var(--line);min-width:120px}
.assistant[aria-busy=true] p:after{content:"";display:inline-block;width:.5em;height:1em;margin-left:2px;vertical-align:-.12em;background:var(--main);animation:blink 1s steps(2) infinite}
@keyframes blink{50%{opacity:0}}
.note{font-size:13px;color:var(--soft);margin-top:6px!important}.note.bad{color:var(--bad)}
.composer{position:sticky;bottom:0;background:var(--back);border-top:1px solid var(--line)}
.inner{padding-top:12px;padding-bottom:10px}
.clips{list-style:none;margin:0 0 10px;padding:0;display:grid;gap:8px}
.clip{display:grid;grid-template-columns:auto minmax(0,1fr) auto;gap:2px 10px;align-items:center;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:6px 8px;min-width:min(420px,60vw)}
.user .clip{grid-template-columns:auto minmax(0,1fr)}.composer .clips{max-height:34vh;overflow-y:auto}
.clip .round{width:38px;height:38px;min-height:0;padding:0;border-radius:50%;display:grid;place-items:center}
.clip .round svg{width:16px;height:16px;fill:currentColor}
.wave{position:relative;height:40px}.wave canvas{width:100%;height:100%;display:block}
.wave input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:pointer}
.wave:focus-within{outline:2px solid var(--main);outline-offset:1px;border-radius:4px}
.about{grid-column:2;display:flex;gap:8px;font-size:13px;color:var(--soft);min-width:0;line-height:1.4}
.about .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;flex:1}.about time{font-variant-numeric:tabular-nums}
.recording{display:flex;align-items:center;gap:12px;margin-bottom:10px;background:var(--card);border:1px solid var(--bad);border-radius:10px;padding:6px 12px}
.recording canvas{flex:1;min-width:0;height:40px}.recording output{font-variant-numeric:tabular-nums;color:var(--soft)}
.dot,.mic{width:11px;height:11px;border-radius:50%;background:var(--bad);display:inline-block}.recording .dot{animation:blink 1.2s steps(2) infinite}
textarea{width:100%;resize:vertical;min-height:60px;max-height:40vh;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;display:block}
input[type=number],input[type=password]{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:5px 8px;width:100%}
::placeholder{color:var(--soft);opacity:1}
.tools{display:flex;flex-wrap:wrap;gap:8px;margin-top:10px;align-items:center}.gap{flex:1}
.tool{display:inline-flex;align-items:center;gap:8px;font-size:15px}[aria-pressed=true].tool{border-color:var(--bad)}[aria-pressed=true] .mic{border-radius:2px}
.settings{position:relative}.settings summary{list-style:none}.settings summary::-webkit-details-marker{display:none}
.panel{position:absolute;bottom:46px;left:0;width:260px;max-height:70vh;overflow-y:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;display:grid;gap:10px;font-size:14px;box-shadow:0 6px 24px rgba(0,0,0,.16)}
.speech{display:grid;gap:8px;border-top:1px solid var(--line);padding-top:10px}.speech label{display:grid;grid-template-columns:1fr auto}
.speech input[type=range]{grid-column:1/-1;width:100%;accent-color:var(--main)}.speech .value{font-variant-numeric:tabular-nums;color:var(--soft)}
.speech .clips{margin:0}.speech .clip{min-width:0}.assistant .clips{margin:8px 0 0}.assistant .clip{grid-template-columns:auto minmax(0,1fr)}
#record{touch-action:none;user-select:none}.talks #record{min-width:130px;justify-content:center}
.hint{font-size:13px;color:var(--soft);margin:8px 0 0}
.error{color:var(--bad);background:var(--bad-back);border-radius:8px;padding:8px 12px;margin:0 0 10px;overflow-wrap:anywhere}
.key{display:flex;gap:8px;align-items:center;margin-bottom:10px;font-size:14px}.key label{white-space:nowrap}
.drop{position:fixed;inset:0;z-index:3;display:grid;place-items:center;background:color-mix(in srgb,var(--back) 82%,transparent);border:3px dashed var(--main);font-size:24px;pointer-events:none}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap;margin:0}
.clips:has(.media){grid-template-columns:repeat(auto-fill,minmax(132px,1fr))}.clips:has(.media)>.clip:not(.media){grid-column:1/-1}
.media,.user .media,.assistant .media{position:relative;display:block;min-width:0;padding:0;overflow:hidden;max-width:220px}.media img{display:block;width:100%;height:132px;object-fit:contain;background:var(--tint)}
.media .about{padding:3px 8px 5px}.media .round{position:absolute;left:8px;top:86px;background:var(--card)}.media .remove{left:auto;right:8px;top:8px}
.user .clips:has(.media){display:flex;flex-wrap:wrap;justify-content:flex-end}.user .media{width:200px}.media .remove{width:34px;height:34px}
.viewer{margin-bottom:10px;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:8px;display:grid;gap:8px;justify-items:center}
.viewer video{width:100%;max-height:34vh;border-radius:6px;background:#000}.shutters{display:flex;flex-wrap:wrap;gap:8px;justify-content:center}#video-time:empty{display:none}#video-time{font-variant-numeric:tabular-nums;color:var(--soft)}
.tasks{display:flex;flex-wrap:wrap;gap:8px;margin-bottom:10px}.tasks button{border-color:var(--main);font-size:15px}.task{margin-left:8px;padding:1px 8px;border-radius:9px;background:var(--main);color:var(--on-main);font-weight:600}
.bars{list-style:none;margin:2px 0 10px;padding:0;display:grid;gap:4px;font-size:14px;min-width:min(360px,70vw)}.bars li{display:grid;grid-template-columns:6.5em minmax(0,1fr) 3.2em;gap:10px;align-items:center}
.bar-label{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.bar-track{height:12px;border-radius:6px;background:var(--tint);overflow:hidden}.bar-fill{display:block;height:100%;background:var(--main);border-radius:6px}.bar-share{text-align:right;font-variant-numeric:tabular-nums;color:var(--soft)}
.views{margin:2px 0 10px}.views summary{border:0;background:none;padding:0;min-height:0;font-size:14px;color:var(--soft);width:fit-content}.view{display:flex;gap:10px;align-items:flex-start;margin-top:6px}
.view .grid{display:grid;gap:3px;flex:1;min-width:0}.view.video .grid{max-width:640px}.view img{display:block;width:100%;aspect-ratio:1;border-radius:3px;background:var(--tint)}.view .whole{width:84px;flex:none}
@media (max-width:560px){.bar,main,.inner{padding-left:12px;padding-right:12px}.turn{max-width:96%}.hint{display:none}.clip{min-width:0}.composer .wave{height:26px}.composer .clip{padding:4px 8px}textarea{min-height:48px;padding:7px 12px}.user:has(.clip){width:100%}
.viewer video{max-height:24vh}.composer .media{padding:0}.user .media{width:132px}.composer .media img{height:72px}.composer .media .round{top:28px}.composer .media .remove{top:4px}.composer .clips:has(.media){grid-template-columns:repeat(auto-fill,minmax(96px,1fr))}.tasks{gap:6px}.tasks button{padding:5px 9px;min-height:40px}.view.video .grid{grid-template-columns:repeat(4,minmax(0,1fr))!important}
.welcome h2{font-size:24px}.tools{gap:6px}.tool{padding:6px 10px}.panel{position:fixed;left:12px;right:12px;width:auto;bottom:112px}.fresh{padding:6px 8px}.ask,.stop{flex:1}}
@media (prefers-reduced-motion:reduce){*{animation:none!important}}`
