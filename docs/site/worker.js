// A browser starts no workers for pages that are read from files, and the search asks for one: it runs in a
// hidden frame instead. From a server nothing is changed.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super()
      const place = new URL(script, location)
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const load = url =>
        new Promise((resolve, reject) => {
          const element = frame.contentDocument.createElement("script")
          element.src = new URL(url, place)
          element.onload = resolve
          element.onerror = reject
          frame.contentDocument.head.append(element)
        })
      this.inside.importScripts = (...urls) => Promise.all(urls.map(load))
      this.ready = load(place)
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
