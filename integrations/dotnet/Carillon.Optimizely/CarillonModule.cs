// Optimizely CMS 12: what editors do becomes Carillon's events.
//
// NOT RUN HERE: there is no CMS in the tests of this repository; it has not been compiled in them. What it hooks into:
//
// - `ProjectRepository.ProjectSaved`, `.ProjectDeleted`, `.ProjectItemsSaved`, `.ProjectItemsDeleted`: static, documented
//   events ("Program projects" in Optimizely's developer guide).
// - `IContentEvents`: `SavedContent`, `CheckedInContent`, `PublishedContent`, `ScheduledContent`, `RejectedContent`,
//   `MovedContent`, `DeletedContent`: documented.
// - Comments of a project: the same guide says that there is no public API for them. The editing UI itself raises
//   `ProjectActivityFeed.ActivityCreated/Updated/Deleted` and `ActivityCommentRepository.CommentCreated/Updated/Deleted`
//   in an internal namespace of EPiServer.Cms.UI. They may change with any release, so they are bound in one place,
//   `CarillonComments`, behind a compilation symbol; look them up in your version.
// - Notifications: `INotifier` is intercepted in the container; `created` comes from there. `read` and `deleted` happen
//   in the editing UI: publish them (with the absolute count in `data.unread`) where your site marks notifications.
//
// All these are raised after the change is in the database ("Saved", not "Saving"): what is refetched is there already.
// An event that is raised inside a transaction of your own must be published after its commit: see `AfterCommit`.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading.Tasks;
using System.Transactions;
using EPiServer;
using EPiServer.Core;
using EPiServer.DataAbstraction;
using EPiServer.Framework;
using EPiServer.Framework.Initialization;
using EPiServer.Logging;
using EPiServer.Notification;
using EPiServer.Security;
using EPiServer.ServiceLocation;
using Microsoft.Extensions.DependencyInjection;
using StackExchange.Redis;

namespace Carillon.Optimizely
{
    /// <summary>Publishes once the present transaction has committed; at once where there is none.</summary>
    public sealed class AfterCommit
    {
        private static readonly ILogger Log = LogManager.GetLogger(typeof(AfterCommit));
        private readonly CarillonPublisher publisher;

        public AfterCommit(CarillonPublisher publisher) { this.publisher = publisher; }

        public void Tell(string topic, CarillonEvent what)
        {
            var transaction = Transaction.Current;
            if (transaction == null) { Put(topic, what); return; }
            transaction.TransactionCompleted += (_, e) =>
            {
                if (e.Transaction?.TransactionInformation.Status == TransactionStatus.Committed) Put(topic, what);
            };
        }

        private void Put(string topic, CarillonEvent what)
        {
            if (!publisher.Enqueue(topic, what))
                Log.Error("Carillon: Redis has been away for too long; editors were not told of " + what.Type + " in " + topic);
        }
    }

    /// <summary>Topics and their keys.</summary>
    public static class CarillonTopics
    {
        public static string Comments(int project) => Topics.Of("comments", project);
        public static string ProjectItems(int project) => Topics.Of("project-items", project);
        public static string Content(ContentReference link) => Topics.Of("content", link.ID);

        /// <summary>Optimizely's names do not distinguish case: the nodes have <c>auth.fold_subject = true</c>.</summary>
        public static string Notifications(string user) => Topics.Private(Topics.Folded(user));
    }

    [InitializableModule]
    [ModuleDependency(typeof(EPiServer.Web.InitializationModule))]
    public sealed class CarillonModule : IConfigurableModule
    {
        private AfterCommit queue = null!;
        private IContentEvents contentEvents = null!;

        public void ConfigureContainer(ServiceConfigurationContext context)
        {
            context.Services.AddSingleton<IConnectionMultiplexer>(_ => ConnectionMultiplexer.Connect(
                Environment.GetEnvironmentVariable("CARILLON_REDIS") ?? "localhost:6379,abortConnect=false"));
            context.Services.AddSingleton(services =>
            {
                var publisher = new CarillonPublisher(services.GetRequiredService<IConnectionMultiplexer>(), new CarillonOptions { Source = "optimizely" });
                publisher.Report("optimizely-" + Environment.MachineName);
                return publisher;
            });
            context.Services.AddSingleton<AfterCommit>();
            context.ConfigurationComplete += (_, e) => e.Services.Intercept<INotifier>(
                (services, notifier) => new CarillonNotifier(notifier, services.GetRequiredService<AfterCommit>()));
        }

        public void Initialize(InitializationEngine context)
        {
            queue = context.Locate.Advanced.GetInstance<AfterCommit>();
            ProjectRepository.ProjectSaved += OnProjectSaved;
            ProjectRepository.ProjectDeleted += OnProjectDeleted;
            ProjectRepository.ProjectItemsSaved += OnItemsSaved;
            ProjectRepository.ProjectItemsDeleted += OnItemsDeleted;

            contentEvents = context.Locate.Advanced.GetInstance<IContentEvents>();
            contentEvents.SavedContent += OnSaved;
            contentEvents.CheckedInContent += OnCheckedIn;
            contentEvents.PublishedContent += OnPublished;
            contentEvents.ScheduledContent += OnScheduled;
            contentEvents.RejectedContent += OnRejected;
            contentEvents.MovedContent += OnMoved;
            contentEvents.DeletedContent += OnDeleted;
#if CARILLON_COMMENTS
            CarillonComments.Follow(context.Locate.Advanced, queue);
#endif
        }

        public void Uninitialize(InitializationEngine context)
        {
            ProjectRepository.ProjectSaved -= OnProjectSaved;
            ProjectRepository.ProjectDeleted -= OnProjectDeleted;
            ProjectRepository.ProjectItemsSaved -= OnItemsSaved;
            ProjectRepository.ProjectItemsDeleted -= OnItemsDeleted;
            contentEvents.SavedContent -= OnSaved;
            contentEvents.CheckedInContent -= OnCheckedIn;
            contentEvents.PublishedContent -= OnPublished;
            contentEvents.ScheduledContent -= OnScheduled;
            contentEvents.RejectedContent -= OnRejected;
            contentEvents.MovedContent -= OnMoved;
            contentEvents.DeletedContent -= OnDeleted;
        }

        private void OnProjectSaved(object? sender, ProjectEventArgs e) => Tell("projects", "project.saved", Data(("project", e.Project.ID)));
        private void OnProjectDeleted(object? sender, ProjectEventArgs e) => Tell("projects", "project.deleted", Data(("project", e.Project.ID)));
        private void OnItemsSaved(object? sender, ProjectItemsEventArgs e) => TellItems("project_item.saved", e);
        private void OnItemsDeleted(object? sender, ProjectItemsEventArgs e) => TellItems("project_item.deleted", e);

        private void OnSaved(object? sender, ContentEventArgs e) => TellContent("content.saved", e);
        private void OnCheckedIn(object? sender, ContentEventArgs e) => TellContent("content.checked_in", e);
        private void OnPublished(object? sender, ContentEventArgs e) => TellContent("content.published", e);
        private void OnScheduled(object? sender, ContentEventArgs e) => TellContent("content.scheduled", e);
        private void OnRejected(object? sender, ContentEventArgs e) => TellContent("content.rejected", e);
        private void OnMoved(object? sender, ContentEventArgs e) => TellContent("content.moved", e);
        private void OnDeleted(object? sender, DeleteContentEventArgs e) => TellContent("content.deleted", e);

        private static Dictionary<string, object?> Data(params (string Name, object? Value)[] members) => members.ToDictionary(m => m.Name, m => m.Value);

        private void TellItems(string type, ProjectItemsEventArgs e)
        {
            foreach (var project in e.ProjectItems.GroupBy(item => item.ProjectID))
            {
                var items = project.Select(item => Data(("content", item.ContentLink.ToString()), ("language", item.Language?.Name))).ToList();
                Tell(CarillonTopics.ProjectItems(project.Key), type, Data(("project", project.Key), ("items", items)));
            }
        }

        private void TellContent(string type, ContentEventArgs e)
        {
            if (ContentReference.IsNullOrEmpty(e.ContentLink)) return;
            Tell(CarillonTopics.Content(e.ContentLink), type, Data(("content", e.ContentLink.ToString())));
        }

        private void Tell(string topic, string type, Dictionary<string, object?> data) =>
            queue.Tell(topic, new CarillonEvent(type) { Actor = PrincipalInfo.CurrentPrincipal.Identity?.Name, Data = data });
    }

    /// <summary>Tells the recipients of a notification that there is one, once the CMS has stored it.</summary>
    public sealed class CarillonNotifier : INotifier
    {
        private readonly INotifier notifier;
        private readonly AfterCommit queue;

        public CarillonNotifier(INotifier notifier, AfterCommit queue)
        {
            this.notifier = notifier;
            this.queue = queue;
        }

        public async Task PostNotificationAsync(NotificationMessage notification)
        {
            await notifier.PostNotificationAsync(notification);
            foreach (var recipient in notification.Recipients)
            {
                var what = new CarillonEvent("notification.created")
                {
                    Actor = notification.Sender?.UserName,
                    Data = { ["channel"] = notification.ChannelName },
                };
                queue.Tell(CarillonTopics.Notifications(recipient.UserName), what);
            }
        }
    }

#if CARILLON_COMMENTS
    /// <summary>Comments and activities of projects: an internal API, bound here and nowhere else.</summary>
    internal static class CarillonComments
    {
        public static void Follow(IServiceProvider services, AfterCommit queue)
        {
            var feed = services.GetInstance<EPiServer.Cms.Shell.UI.Rest.Projects.Internal.ProjectActivityFeed>();
            feed.ActivityCreated += (_, e) => Tell(queue, e.ProjectId, "activity.created", e.Activity.Id);
            feed.ActivityUpdated += (_, e) => Tell(queue, e.ProjectId, "activity.updated", e.Activity.Id);
            feed.ActivityDeleted += (_, e) => Tell(queue, e.ProjectId, "activity.deleted", e.Activity.Id);
            var comments = services.GetInstance<EPiServer.Cms.Shell.UI.Rest.Activities.Internal.ActivityCommentRepository>();
            comments.CommentCreated += (_, e) => Tell(queue, e.ProjectId, "comment.created", e.Comment.Id);
            comments.CommentUpdated += (_, e) => Tell(queue, e.ProjectId, "comment.updated", e.Comment.Id);
            comments.CommentDeleted += (_, e) => Tell(queue, e.ProjectId, "comment.deleted", e.Comment.Id);
        }

        private static void Tell(AfterCommit queue, int project, string type, object id) => queue.Tell(
            CarillonTopics.Comments(project),
            new CarillonEvent(type) { Actor = PrincipalInfo.CurrentPrincipal.Identity?.Name, Data = { ["project"] = project, ["id"] = id } });
    }
#endif
}
